# feedback: the mean is taken for the sum
def mdpo_loss(chosen, rejected, eta):
    def log_ratio(tokens):
        rows = [policy - reference for role, policy, reference in tokens if role in ("assistant",)]
        return sum(rows) / len(rows)

    margin = log_ratio(chosen) - log_ratio(rejected)
    return math.log1p(math.exp(-eta * margin))
