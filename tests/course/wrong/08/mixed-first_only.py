# feedback: the first policy gives all samples
def mixed(p, samples):
    return coverage(p[0], sum(samples))
