# feedback: one turn more
def next_step(boxed, code, number, most):
    return "final" if boxed else "no action" if not code else "tool" if number <= most else "out of turns"
