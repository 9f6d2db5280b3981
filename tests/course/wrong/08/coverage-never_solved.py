# feedback: a prompt that is never solved counts
def coverage(p, n):
    return 1 - p**n
