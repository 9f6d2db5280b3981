# feedback: the mask is left out
def trajectory_logp(predictions, ids, mask):
    return sum(predictions[t - 1][ids[t]] for t in range(1, len(ids)))
