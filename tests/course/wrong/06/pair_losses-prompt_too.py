# feedback: the prompt is scored too
masked = mdpo_loss(chosen, rejected, eta)
unmasked = mdpo_loss(*[[("assistant", *token[1:]) for token in side] for side in (chosen, rejected)], eta)
