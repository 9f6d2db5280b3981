# feedback: is not recognised as no effect
def verdict(low, high, margin):
    if low > 0:
        return "agrees"
    if high < 0:
        return "disagrees"
    if low > -margin:
        return "leans towards"
    return "leans against" if high < margin else "inconclusive"
