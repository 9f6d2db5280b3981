# feedback: wherever there is one
def greedy_and_sampled(families):
    greedy = [any(good for _, good in ways) for ways in families]
    sampled = [sum(p for p, good in ways if good) for ways in families]
    return sum(greedy) / len(families), sum(sampled) / len(families)
