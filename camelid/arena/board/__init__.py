"""The leaderboard: ratings that follow votes, plots, the votes and texts behind every cell, and operators' pages."""
