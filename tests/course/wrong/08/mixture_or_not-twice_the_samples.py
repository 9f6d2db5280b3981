# feedback: twice as many samples
gains = [mixed([a, b], [n, n]) - coverage(a, n) for a, b in table]
gain, better = sum(gains), sum(one > 0 for one in gains)
