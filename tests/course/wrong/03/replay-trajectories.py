# feedback: trajectories are counted
replayed, in_sessions = sum(n * (n + 1) // 2 for n in cells), len(cells)
