# feedback: the sign is turned round
def push(winner, loser, eta):
    return eta * (1 - preferred(winner, loser, eta))
