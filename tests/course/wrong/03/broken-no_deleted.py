# feedback: deleted files are not looked for
def broken(before, after, report):
    return sorted(p for p in after if before.get(p) != after.get(p))
