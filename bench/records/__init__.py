"""Records and what follows from them: scores, files, the leaderboard, findings."""
