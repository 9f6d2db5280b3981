# feedback: samples are counted, and not prompts
accuracy = sum(map(sum, verdicts)) / 48
disagreeing = sum(map(len, verdicts))
