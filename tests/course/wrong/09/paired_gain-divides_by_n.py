# feedback: the variance divides by n
def paired_gain(before, after):
    n = len(before)
    gains = [b - a for a, b in zip(before, after)]
    mean = sum(gains) / n
    error = math.sqrt(sum((one - mean) ** 2 for one in gains) / n / n)
    return mean, mean - 1.96 * error, mean + 1.96 * error
