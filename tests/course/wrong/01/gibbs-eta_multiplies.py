# feedback: eta multiplies the utility
def gibbs(reference, utility, eta):
    weights = [p * math.exp(u * eta) for p, u in zip(reference, utility)]
    return [one / sum(weights) for one in weights]
