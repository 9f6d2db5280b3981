# feedback: eta is left out of the slope
def mdpo_gradient(chosen, rejected, eta):
    slope = -(1 - math.exp(-mdpo_loss(chosen, rejected, eta)))
    return [slope if role == "assistant" else 0.0 for role, _, _ in chosen]
