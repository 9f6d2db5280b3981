# feedback: the tool's words are scored
m = sum(p - r for _, p, r in winner) - sum(p - r for _, p, r in loser)
loss = math.log1p(math.exp(-eta * m))
last = winner[-1][1] - m
