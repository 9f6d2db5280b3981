# feedback: the losing draw is left out
def mdpo_prefers(prize, chance, sure):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    wins = chance * sigmoid(prize - sure)
    return math.log(wins / (1 - wins)) - (chance * prize - sure)
