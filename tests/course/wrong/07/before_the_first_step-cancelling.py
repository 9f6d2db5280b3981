# feedback: margins that cancel in the mean
def before_the_first_step(start, reference, pairs, eta):
    margins = [eta * (start[c] - reference[c] - start[r] + reference[r]) for c, r in pairs]
    return sum(math.log1p(math.exp(-one)) for one in margins) / len(margins), abs(sum(margins)) < 1e-9
