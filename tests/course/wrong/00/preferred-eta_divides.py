# feedback: eta divides
def preferred(winner, loser, eta):
    return 1 / (1 + math.exp(-(winner - loser) / eta))
