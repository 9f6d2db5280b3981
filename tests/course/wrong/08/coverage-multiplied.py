# feedback: the two probabilities are multiplied
def coverage(p, n):
    return (1 - p**n) * (1 - (1 - p) ** n)
