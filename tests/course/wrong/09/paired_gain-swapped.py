# feedback: before and after are swapped
def paired_gain(before, after):
    n = len(before)
    gains = [a - b for a, b in zip(before, after)]
    mean = sum(gains) / n
    error = math.sqrt(sum((one - mean) ** 2 for one in gains) / (n - 1) / n)
    return mean, mean - 1.96 * error, mean + 1.96 * error
