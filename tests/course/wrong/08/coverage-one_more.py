# feedback: one sample more is counted
def coverage(p, n):
    return 1 - p ** (n + 1) - (1 - p) ** (n + 1)
