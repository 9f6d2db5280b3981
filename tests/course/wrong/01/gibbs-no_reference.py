# feedback: the reference is left out
def gibbs(reference, utility, eta):
    weights = [math.exp(u / eta) for p, u in zip(reference, utility)]
    return [one / sum(weights) for one in weights]
