# feedback: all cells of the finished trajectory
replayed, in_sessions = sum(n * n for n in cells), sum(cells)
