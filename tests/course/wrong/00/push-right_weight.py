# feedback: the probability of being right
def push(winner, loser, eta):
    return -eta * preferred(winner, loser, eta)
