# feedback: the mask is shifted to the left
def loss_mask(roles):
    own = [int(role == "assistant") for role in roles]
    return [*own[1:], 0]
