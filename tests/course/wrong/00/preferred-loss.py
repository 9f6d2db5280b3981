# feedback: the loss is given
def preferred(winner, loser, eta):
    return math.log1p(math.exp(-eta * (winner - loser)))
