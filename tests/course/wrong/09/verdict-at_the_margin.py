# feedback: an end at the margin counts as inside
def verdict(low, high, margin):
    if low >= -margin and high <= margin:
        return "no effect"
    if low > 0:
        return "agrees"
    if high < 0:
        return "disagrees"
    if low >= -margin:
        return "leans towards"
    return "leans against" if high <= margin else "inconclusive"
