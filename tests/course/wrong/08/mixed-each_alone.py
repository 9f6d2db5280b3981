# feedback: disagreement is asked of one policy alone
def mixed(p, samples):
    return 1 - math.prod(1 - coverage(a, n) for a, n in zip(p, samples))
