# feedback: choices without a wrong trajectory count
def coverage_of_fewer(right, total, n):
    return 1 - math.comb(total - right, n) / math.comb(total, n)
