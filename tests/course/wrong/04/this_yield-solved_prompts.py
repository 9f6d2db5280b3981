# feedback: prompts with a right sample are counted
accuracy = sum(map(any, verdicts)) / len(verdicts)
disagreeing = sum(any(row) and not all(row) for row in verdicts)
