# feedback: the tool's words are summed too
def log_ratio(trajectory):
    return sum(p - r for _, p, r in trajectory)
