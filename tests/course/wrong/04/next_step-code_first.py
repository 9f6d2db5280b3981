# feedback: code is run although the answer is final
def next_step(boxed, code, number, most):
    if code and number < most:
        return "tool"
    if boxed:
        return "final"
    return "out of turns" if code else "no action"
