# feedback: the standard deviation is taken for the standard error
def paired_gain(before, after):
    n = len(before)
    gains = [b - a for a, b in zip(before, after)]
    mean = sum(gains) / n
    error = math.sqrt(sum((one - mean) ** 2 for one in gains) / (n - 1))
    return mean, mean - 1.96 * error, mean + 1.96 * error
