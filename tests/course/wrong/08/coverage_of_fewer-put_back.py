# feedback: drawn samples are put back
def coverage_of_fewer(right, total, n):
    return 1 - (right / total) ** n - (1 - right / total) ** n
