# feedback: one iteration too old
def reference_of(iteration, kind):
    return "sft" if kind == "fixed" or iteration < 3 else f"policy {iteration - 2}"
