# feedback: the reference is left out
def log_ratio(trajectory):
    return sum(p for w, p, r in trajectory if w == "assistant")
