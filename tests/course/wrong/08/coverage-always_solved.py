# feedback: a prompt that is always solved counts
def coverage(p, n):
    return 1 - (1 - p) ** n
