# feedback: eta is left out
def push(winner, loser, eta):
    return -(1 - preferred(winner, loser, eta))
