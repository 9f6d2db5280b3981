# feedback: the middle is not shifted
def wilson(right, n):
    z, p = 1.96, right / n
    middle = p
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    return (middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n)
