# feedback: should be a number
# mistake: the numbers are not computed
nf4_lost = even_lost = None
