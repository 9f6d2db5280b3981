# feedback: each demonstration is averaged by itself
loss = sum(sft_loss([row]) for row in batch) / len(batch)
share = sum(sum(mask) for _, mask in batch) / sum(len(mask) for _, mask in batch)
