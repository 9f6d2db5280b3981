# feedback: new files are not looked for
def broken(before, after, report):
    return sorted(p for p in before if before.get(p) != after.get(p))
