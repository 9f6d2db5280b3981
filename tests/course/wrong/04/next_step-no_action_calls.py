# feedback: calls the tool
def next_step(boxed, code, number, most):
    return "final" if boxed else "tool" if not code or number < most else "out of turns"
