# feedback: a prompt that is always solved counts
def mixed(p, samples):
    return 1 - math.prod((1 - a) ** n for a, n in zip(p, samples))
