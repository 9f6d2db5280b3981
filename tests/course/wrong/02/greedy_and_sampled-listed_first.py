# feedback: listed first
def greedy_and_sampled(families):
    greedy = [ways[0][1] for ways in families]
    sampled = [sum(p for p, good in ways if good) for ways in families]
    return sum(greedy) / len(families), sum(sampled) / len(families)
