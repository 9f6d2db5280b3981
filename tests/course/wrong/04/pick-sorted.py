# feedback: sorted by probability first
def pick(logits, temperature, u):
    if temperature == 0:
        return logits.index(max(logits))
    weights = [math.exp(one / temperature) for one in logits]
    total = 0.0
    for index in sorted(range(len(logits)), key=lambda n: -weights[n]):
        total += weights[index] / sum(weights)
        if u < total:
            return index
    return len(logits) - 1
