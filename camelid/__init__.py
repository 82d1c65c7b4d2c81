"""camelid."""
