# feedback: word should be a verdict
gain = paired_gain(before, after)
word = True
