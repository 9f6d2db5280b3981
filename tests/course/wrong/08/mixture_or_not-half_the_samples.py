# feedback: half of the samples only
gains = [mixed([a, b], [n // 2, n // 2]) - coverage(a, n // 2) for a, b in table]
gain, better = sum(gains), sum(one > 0 for one in gains)
