# feedback: as if they were independent
n = len(before)
spread = sum(sum((one - sum(side) / n) ** 2 for one in side) / (n - 1) for side in (before, after))
mean, error = (sum(after) - sum(before)) / n, math.sqrt(spread / n)
gain = (mean, mean - 1.96 * error, mean + 1.96 * error)
word = verdict(gain[1], gain[2], 0.02)
