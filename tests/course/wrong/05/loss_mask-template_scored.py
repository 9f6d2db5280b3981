# feedback: the template's tokens are scored
def loss_mask(roles):
    return [int(role in ("assistant", "template")) for role in roles]
