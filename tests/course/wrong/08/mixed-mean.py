# feedback: the mean of the two probabilities is used
def mixed(p, samples):
    return coverage(sum(a * n for a, n in zip(p, samples)) / sum(samples), sum(samples))
