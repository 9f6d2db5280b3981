# feedback: the coverages are averaged
def mixed(p, samples):
    return sum(coverage(a, n) for a, n in zip(p, samples)) / len(p)
