# feedback: one step too few
def walk(start, utility, eta, steps, updated):
    policy = start
    for _ in range(steps - 1):
        weights = [p * math.exp(u / eta) for p, u in zip(policy if updated else start, utility)]
        policy = [one / sum(weights) for one in weights]
    return policy
