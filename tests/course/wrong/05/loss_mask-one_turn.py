# feedback: everything after the prompt is scored
def loss_mask(roles):
    return [int(role != "prompt") for role in roles]
