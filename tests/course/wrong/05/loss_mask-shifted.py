# feedback: the mask is shifted by one
def loss_mask(roles):
    own = [int(role == "assistant") for role in roles]
    return [0, *own[:-1]]
