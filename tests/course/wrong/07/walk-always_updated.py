# feedback: the reference is always updated
def walk(start, utility, eta, steps, updated):
    policy = start
    for _ in range(steps):
        weights = [p * math.exp(u / eta) for p, u in zip(policy, utility)]
        policy = [one / sum(weights) for one in weights]
    return policy
