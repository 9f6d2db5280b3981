# feedback: the middle of the interval decides
def verdict(low, high, margin):
    return "agrees" if low + high > 0 else "disagrees"
