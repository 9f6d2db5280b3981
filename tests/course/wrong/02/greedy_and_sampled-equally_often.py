# feedback: equally often
def greedy_and_sampled(families):
    greedy = [max(ways)[1] for ways in families]
    sampled = [sum(good for _, good in ways) / len(ways) for ways in families]
    return sum(greedy) / len(families), sum(sampled) / len(families)
