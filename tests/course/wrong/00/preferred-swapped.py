# feedback: winner and loser are swapped
def preferred(winner, loser, eta):
    return 1 / (1 + math.exp(eta * (winner - loser)))
