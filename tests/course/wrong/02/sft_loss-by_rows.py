# feedback: divided by the demonstrations
def sft_loss(batch):
    sums = [sum(v * s for v, s in zip(*row)) for row in batch]
    counts = [sum(mask) for _, mask in batch]
    return -sum(sums) / len(batch)
