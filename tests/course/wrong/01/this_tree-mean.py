# feedback: the policy's node takes the mean
best = 0.5 * sure + 0.5 * chance
gambles = gibbs([0.5, 0.5], [sure, value(gamble, eta)], eta)[1]
