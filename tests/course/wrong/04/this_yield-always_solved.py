# feedback: disagreeing: expected
accuracy = sum(map(sum, verdicts)) / 48
disagreeing = sum(map(len, verdicts))
