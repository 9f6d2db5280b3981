# feedback: right and all samples are mixed up
def coverage_of_fewer(right, total, n):
    return 1 - (math.comb(right, n) + math.comb(total, n)) / math.comb(total, n)
