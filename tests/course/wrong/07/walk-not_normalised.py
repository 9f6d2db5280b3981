# feedback: the weights are not normalised
def walk(start, utility, eta, steps, updated):
    policy = start
    for _ in range(steps):
        weights = [p * math.exp(u / eta) for p, u in zip(policy if updated else start, utility)]
        policy = weights
    return policy
