# feedback: nothing is divided by
def wilson(right, n):
    z, p = 1.96, right / n
    middle = p + z**2 / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1), (middle + half) / (1)
