# feedback: the temperature is left out
def pick(logits, temperature, u):
    if temperature == 0:
        return logits.index(max(logits))
    weights = [math.exp(one) for one in logits]
    total = 0.0
    for index in range(len(logits)):
        total += weights[index] / sum(weights)
        if u < total:
            return index
    return len(logits) - 1
