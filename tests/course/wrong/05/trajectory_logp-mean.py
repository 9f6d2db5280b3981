# feedback: the mean is taken for the sum
def trajectory_logp(predictions, ids, mask):
    return sum(predictions[t - 1][ids[t]] for t in range(1, len(ids)) if mask[t]) / sum(mask[1:])
