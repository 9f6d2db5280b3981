# feedback: every log-ratio is clamped before the mean
def kl_term(rows):
    others = [policy - reference for prompt, answer_of, policy, reference in rows if prompt != answer_of]
    return sum(max(0.0, one) for one in others) / len(others)
