# feedback: the mean is taken inside the sigmoid
def mdpo_prefers(prize, chance, sure):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    wins = sigmoid(chance * prize - sure)
    return math.log(wins / (1 - wins)) - (chance * prize - sure)
