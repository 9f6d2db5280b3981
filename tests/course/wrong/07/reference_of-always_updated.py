# feedback: both kinds are updated
def reference_of(iteration, kind):
    return "sft" if iteration == 1 else f"policy {iteration - 1}"
