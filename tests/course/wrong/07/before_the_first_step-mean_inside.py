# feedback: the loss of the mean margin
def before_the_first_step(start, reference, pairs, eta):
    margins = [eta * (start[c] - reference[c] - start[r] + reference[r]) for c, r in pairs]
    return math.log1p(math.exp(-sum(margins) / len(margins))), all(abs(one) < 1e-9 for one in margins)
