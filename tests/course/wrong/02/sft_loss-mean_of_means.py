# feedback: each demonstration is averaged by itself
def sft_loss(batch):
    sums = [sum(v * s for v, s in zip(*row)) for row in batch]
    counts = [sum(mask) for _, mask in batch]
    return -sum(a / b for a, b in zip(sums, counts)) / len(batch)
