# feedback: the difference is turned round
def mdpo_prefers(prize, chance, sure):
    def sigmoid(x):
        return 1 / (1 + math.exp(-x))

    wins = chance * sigmoid(prize - sure) + (1 - chance) * sigmoid(-sure)
    return chance * prize - sure - math.log(wins / (1 - wins))
