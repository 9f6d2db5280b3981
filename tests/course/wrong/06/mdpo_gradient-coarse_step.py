# feedback: look at constants, rounding and step sizes
# mistake: finite differences take a coarse step, on one side only
def mdpo_gradient(chosen, rejected, eta, step=0.1):
    def moved(place, by):
        side = [(role, p + by * (n == place), r) for n, (role, p, r) in enumerate(chosen)]
        return mdpo_loss(side, rejected, eta)

    return [(moved(place, step) - moved(place, 0.0)) / step for place in range(len(chosen))]
