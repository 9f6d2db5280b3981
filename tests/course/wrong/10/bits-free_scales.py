# feedback: the scales are left out
def bits(block, scale_bits, group):
    return 4 + (32 / (block * group) if group else 0.0)
