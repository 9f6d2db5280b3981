# feedback: the reference is left out
def mdpo_loss(chosen, rejected, eta):
    def log_prob(tokens):
        return sum(policy for role, policy, reference in tokens if role == "assistant")

    return math.log1p(math.exp(-eta * (log_prob(chosen) - log_prob(rejected))))
