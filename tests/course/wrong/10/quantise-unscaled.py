# feedback: without their scale
def quantise(block, levels):
    scale = max(map(abs, block))
    divisor = 1
    places = []
    for one in block:
        share = one / divisor if divisor else 0.0
        places.append(min(range(len(levels)), key=lambda n: abs(levels[n] - share)))
    return scale, places
