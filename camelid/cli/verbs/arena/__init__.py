"""Which model do people prefer: battles, votes, and a leaderboard that anyone can check."""
