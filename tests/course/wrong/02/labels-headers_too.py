# feedback: the template's headers are learnt too
def labels(ids, roles):
    return [t if r in ("assistant", "template") else -100 for t, r in zip(ids, roles)]
