# feedback: the mean is not clamped at zero
def kl_term(rows):
    others = [policy - reference for prompt, answer_of, policy, reference in rows if prompt != answer_of]
    return sum(others) / len(others)
