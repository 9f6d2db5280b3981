# feedback: the two leanings are swapped
def verdict(low, high, margin):
    if low > -margin and high < margin:
        return "no effect"
    if low > 0:
        return "agrees"
    if high < 0:
        return "disagrees"
    if low > -margin:
        return "leans against"
    return "leans towards" if high < margin else "inconclusive"
