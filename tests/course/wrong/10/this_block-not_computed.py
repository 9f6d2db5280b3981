# feedback: should be a number
nf4_lost = even_lost = None
