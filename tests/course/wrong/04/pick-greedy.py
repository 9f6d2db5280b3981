# feedback: the likeliest token is always taken
def pick(logits, temperature, u):
    return logits.index(max(logits))
