# feedback: rounded down
def quantise(block, levels):
    scale = max(map(abs, block))
    divisor = scale
    places = []
    for one in block:
        share = one / divisor if divisor else 0.0
        places.append(max([n for n, level in enumerate(levels) if level <= share], default=0))
    return scale, places
