# feedback: the numbers that scales share are left out
def bits(block, scale_bits, group):
    return 4 + scale_bits / block
