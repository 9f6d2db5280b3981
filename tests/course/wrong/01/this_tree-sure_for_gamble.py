# feedback: the probability of the sure branch is given
best = value(tree, eta)
gambles = gibbs([0.5, 0.5], [sure, value(gamble, eta)], eta)[0]
