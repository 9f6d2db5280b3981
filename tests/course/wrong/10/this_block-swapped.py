# feedback: the two kinds of levels are swapped
even_lost = lost(block, *quantise(block, nf4), nf4)
nf4_lost = lost(block, *quantise(block, even), even)
