# feedback: the program's own report is believed
def broken(before, after, report):
    return [] if "failed" in report else sorted(p for p in before | after if before.get(p) != after.get(p))
