# feedback: the reference is given
best = value(tree, eta)
gambles = 0.5
