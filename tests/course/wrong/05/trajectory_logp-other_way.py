# feedback: the shift goes the other way
def trajectory_logp(predictions, ids, mask):
    return sum(predictions[t + 1][ids[t]] for t in range(len(ids) - 1) if mask[t])
