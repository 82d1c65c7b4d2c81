"""Which models people prefer: battles, votes, ratings, and a leaderboard whose every number can be checked."""
