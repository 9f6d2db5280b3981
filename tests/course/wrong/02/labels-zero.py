# feedback: marked with 0
def labels(ids, roles):
    return [t if r == "assistant" else 0 for t, r in zip(ids, roles)]
