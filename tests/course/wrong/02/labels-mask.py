# feedback: the mask is given
def labels(ids, roles):
    return [int(r == "assistant") for r in roles]
