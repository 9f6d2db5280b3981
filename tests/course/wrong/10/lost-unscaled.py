# feedback: the levels are not scaled back
def lost(block, scale, indices, levels):
    gaps = [abs(one - levels[index]) for one, index in zip(block, indices)]
    return sum(gaps) / len(gaps)
