# feedback: the reference is left out
def before_the_first_step(start, reference, pairs, eta):
    margins = [eta * (start[c] - start[r]) for c, r in pairs]
    return sum(math.log1p(math.exp(-one)) for one in margins) / len(margins), all(
        abs(one) < 1e-9 for one in margins
    )
