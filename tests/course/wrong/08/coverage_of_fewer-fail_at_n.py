# feedback: choices without a right trajectory count
def coverage_of_fewer(right, total, n):
    return 1 - math.comb(right, n) / math.comb(total, n)
