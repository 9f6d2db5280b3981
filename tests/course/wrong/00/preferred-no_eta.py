# feedback: eta is left out
def preferred(winner, loser, eta):
    return 1 / (1 + math.exp(-(winner - loser)))
