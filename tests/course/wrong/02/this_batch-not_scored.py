# feedback: the share that is not scored
loss = sft_loss(batch)
share = sum(1 - s for _, mask in batch for s in mask) / sum(len(mask) for _, mask in batch)
