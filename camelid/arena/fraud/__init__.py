"""May a board be believed: which few votes decide it, whose votes are no person's opinion, and how one is rigged."""
