# feedback: thrown away
def next_step(boxed, code, number, most):
    if number >= most:
        return "out of turns"
    return "final" if boxed else "tool" if code else "no action"
