# feedback: each weight has a scale of its own
def bits(block, scale_bits, group):
    return 4 + scale_bits + (32 / (block * group) if group else 0.0)
