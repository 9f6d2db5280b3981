# feedback: the template is left out
masked = mdpo_loss(chosen, rejected, eta)
kept = [
    [("assistant", *token[1:]) for token in side if token[0] in ("assistant", "tool")]
    for side in (chosen, rejected)
]
unmasked = mdpo_loss(*kept, eta)
