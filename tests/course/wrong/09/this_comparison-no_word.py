# feedback: word should be a verdict
# mistake: true or false is given where a word is asked for
gain = paired_gain(before, after)
word = True
