# feedback: the mean is taken for the sum
def log_ratio(trajectory):
    return sum(p - r for w, p, r in trajectory if w == "assistant") / sum(
        w == "assistant" for w, _, _ in trajectory
    )
