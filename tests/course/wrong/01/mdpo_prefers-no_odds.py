# feedback: the logarithm is of w and not of the odds
def mdpo_prefers(prize, chance, sure):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    wins = chance * sigmoid(prize - sure) + (1 - chance) * sigmoid(-sure)
    return math.log(wins) - (chance * prize - sure)
