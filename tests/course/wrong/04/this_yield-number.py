# feedback: the number is given
accuracy = float(sum(map(sum, verdicts)))
disagreeing = sum(any(row) and not all(row) for row in verdicts)
