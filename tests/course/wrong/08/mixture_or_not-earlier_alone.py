# feedback: the earlier policy alone
gains = [coverage(b, n) - coverage(a, n) for a, b in table]
gain, better = sum(gains), sum(one > 0 for one in gains)
