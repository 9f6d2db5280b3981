# feedback: is charged to `group` weights
def bits(block, scale_bits, group):
    return 4 + scale_bits / block + (32 / group if group else 0.0)
