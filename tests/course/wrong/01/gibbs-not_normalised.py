# feedback: the weights are not normalised
def gibbs(reference, utility, eta):
    weights = [p * math.exp(u / eta) for p, u in zip(reference, utility)]
    return [one for one in weights]
