# feedback: winner and loser are swapped
m = log_ratio(winner) - log_ratio(loser)
loss = math.log1p(math.exp(eta * m))
last = winner[-1][1] - m
