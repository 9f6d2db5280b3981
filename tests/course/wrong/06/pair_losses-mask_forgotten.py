# feedback: everything but the prompt is scored
everything = [
    [("assistant", *token[1:]) for token in side if token[0] != "prompt"] for side in (chosen, rejected)
]
masked = unmasked = mdpo_loss(*everything, eta)
