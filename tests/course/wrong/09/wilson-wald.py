# feedback: Wald's interval is taken for Wilson's
def wilson(right, n):
    z, p = 1.96, right / n
    middle = p
    half = z * math.sqrt(p * (1 - p) / n)
    return (middle - half) / (1), (middle + half) / (1)
