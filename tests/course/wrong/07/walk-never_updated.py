# feedback: the reference is never updated
def walk(start, utility, eta, steps, updated):
    policy = start
    for _ in range(steps):
        weights = [p * math.exp(u / eta) for p, u in zip(start, utility)]
        policy = [one / sum(weights) for one in weights]
    return policy
