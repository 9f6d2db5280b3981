# feedback: a loss of 0 is expected
def before_the_first_step(start, reference, pairs, eta):
    margins = [eta * (start[c] - reference[c] - start[r] + reference[r]) for c, r in pairs]
    return sum(math.log1p(math.exp(-one)) for one in margins) / len(margins), abs(
        sum(math.log1p(math.exp(-one)) for one in margins)
    ) < 1e-9
