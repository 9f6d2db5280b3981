# feedback: before and after are swapped
gain = paired_gain(after, before)
word = verdict(gain[1], gain[2], 0.02)
