# feedback: the sum is taken for the mean
def kl_term(rows):
    others = [policy - reference for prompt, answer_of, policy, reference in rows if prompt != answer_of]
    return max(0.0, sum(others))
