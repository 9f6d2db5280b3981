# feedback: the errors are squared
def lost(block, scale, indices, levels):
    gaps = [(one - scale * levels[index]) ** 2 for one, index in zip(block, indices)]
    return sum(gaps) / len(gaps)
