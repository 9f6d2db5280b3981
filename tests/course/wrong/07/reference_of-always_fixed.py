# feedback: both kinds are fixed
def reference_of(iteration, kind):
    return "sft"
