# feedback: does not depend on the margin
def push(winner, loser, eta):
    return -eta
