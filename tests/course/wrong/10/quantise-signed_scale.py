# feedback: with its sign
def quantise(block, levels):
    scale = max(block)
    divisor = scale
    places = []
    for one in block:
        share = one / divisor if divisor else 0.0
        places.append(min(range(len(levels)), key=lambda n: abs(levels[n] - share)))
    return scale, places
