# feedback: errors of different sign cancel
def lost(block, scale, indices, levels):
    gaps = [one - scale * levels[index] for one, index in zip(block, indices)]
    return sum(gaps) / len(gaps)
