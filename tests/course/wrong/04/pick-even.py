# feedback: every token is equally likely
def pick(logits, temperature, u):
    if temperature == 0:
        return logits.index(max(logits))
    weights = [1.0 for one in logits]
    total = 0.0
    for index in range(len(logits)):
        total += weights[index] / sum(weights)
        if u < total:
            return index
    return len(logits) - 1
