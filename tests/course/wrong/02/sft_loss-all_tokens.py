# feedback: divided by all tokens
def sft_loss(batch):
    sums = [sum(v * s for v, s in zip(*row)) for row in batch]
    counts = [sum(mask) for _, mask in batch]
    return -sum(sums) / sum(len(mask) for _, mask in batch)
