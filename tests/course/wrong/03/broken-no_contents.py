# feedback: contents are not compared
def broken(before, after, report):
    return sorted(set(before) ^ set(after))
