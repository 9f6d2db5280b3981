# feedback: the largest error
def lost(block, scale, indices, levels):
    gaps = [abs(one - scale * levels[index]) for one, index in zip(block, indices)]
    return max(gaps)
