# feedback: the tool's tokens are scored
def loss_mask(roles):
    return [int(role in ("assistant", "tool")) for role in roles]
