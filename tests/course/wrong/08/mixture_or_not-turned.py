# feedback: the difference is turned round
gains = [coverage(a, n) - mixed([a, b], [n // 2, n // 2]) for a, b in table]
gain, better = sum(gains), sum(one > 0 for one in gains)
