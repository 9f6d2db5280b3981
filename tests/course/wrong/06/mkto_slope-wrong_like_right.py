# feedback: wrong trajectories are pushed like right ones
def mkto_slope(right, wrong, others, eta):
    def loss(delta):
        z0 = max(0.0, sum(others) / len(others))
        total = sum(1 / (1 + math.exp(-eta * (one + delta - z0))) for one in right)
        total += sum(1 / (1 + math.exp(-eta * (one + delta - z0))) for one in wrong)
        return 1 - total / (len(right) + len(wrong))

    return (loss(1e-4) - loss(-1e-4)) / 2e-4
