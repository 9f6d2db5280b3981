# feedback: the cell of the turn itself is left out
replayed, in_sessions = sum(n * (n - 1) // 2 for n in cells), sum(cells)
