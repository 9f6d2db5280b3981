# feedback: eta is left out
def gibbs(reference, utility, eta):
    weights = [p * math.exp(u) for p, u in zip(reference, utility)]
    return [one / sum(weights) for one in weights]
