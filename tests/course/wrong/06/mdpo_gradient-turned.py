# feedback: sigma(margin) and not sigma(-margin)
def mdpo_gradient(chosen, rejected, eta):
    slope = -eta * math.exp(-mdpo_loss(chosen, rejected, eta))
    return [slope if role == "assistant" else 0.0 for role, _, _ in chosen]
