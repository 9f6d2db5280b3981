# feedback: eta stands outside the sigmoid
def mdpo_loss(chosen, rejected, eta):
    def log_ratio(tokens):
        rows = [policy - reference for role, policy, reference in tokens if role in ("assistant",)]
        return sum(rows)

    margin = log_ratio(chosen) - log_ratio(rejected)
    return eta * math.log1p(math.exp(-margin))
