# feedback: the first two samples only
def coverage(p, n):
    return 2 * p * (1 - p)
