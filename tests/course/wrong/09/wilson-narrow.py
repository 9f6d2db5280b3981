# feedback: the term z²/4n² is missing
def wilson(right, n):
    z, p = 1.96, right / n
    middle = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n)
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
