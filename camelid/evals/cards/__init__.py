"""Score cards: our figures beside published ones, and what differs between the two."""
