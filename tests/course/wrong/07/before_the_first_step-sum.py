# feedback: the sum is taken for the mean
def before_the_first_step(start, reference, pairs, eta):
    margins = [eta * (start[c] - reference[c] - start[r] + reference[r]) for c, r in pairs]
    return sum(math.log1p(math.exp(-one)) for one in margins), all(abs(one) < 1e-9 for one in margins)
