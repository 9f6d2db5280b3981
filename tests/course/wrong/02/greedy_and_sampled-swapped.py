# feedback: are swapped
def greedy_and_sampled(families):
    greedy = [max(ways)[1] for ways in families]
    sampled = [sum(p for p, good in ways if good) for ways in families]
    return sum(sampled) / len(families), sum(greedy) / len(families)
