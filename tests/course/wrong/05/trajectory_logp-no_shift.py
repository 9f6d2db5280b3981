# feedback: without the shift
def trajectory_logp(predictions, ids, mask):
    return sum(predictions[t][v] for t, v in enumerate(ids) if mask[t])
