# feedback: the labels are shifted
def labels(ids, roles):
    return [*[t if r == "assistant" else -100 for t, r in zip(ids, roles)][1:], -100]
