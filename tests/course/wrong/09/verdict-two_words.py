# feedback: called inconclusive
def verdict(low, high, margin):
    return "agrees" if low > 0 else "disagrees" if high < 0 else "inconclusive"
