# feedback: as if they were independent
def paired_gain(before, after):
    n = len(before)
    gains = [b - a for a, b in zip(before, after)]
    mean = sum(gains) / n
    error = math.sqrt(
        sum(sum((one - sum(side) / n) ** 2 for one in side) / (n - 1) for side in (before, after)) / n
    )
    return mean, mean - 1.96 * error, mean + 1.96 * error
