# feedback: the block is not scaled
nf4_lost, even_lost = (
    sum(min(abs(one - level) for level in levels) for one in block) / 64 for levels in (nf4, even)
)
