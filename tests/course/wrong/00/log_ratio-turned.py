# feedback: reference minus policy
def log_ratio(trajectory):
    return sum(r - p for w, p, r in trajectory if w == "assistant")
