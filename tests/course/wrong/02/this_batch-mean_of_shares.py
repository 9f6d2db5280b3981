# feedback: the shares of the demonstrations are averaged
loss = sft_loss(batch)
share = sum(sum(mask) / len(mask) for _, mask in batch) / len(batch)
