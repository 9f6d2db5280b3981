# feedback: has the wrong name
def reference_of(iteration, kind):
    return "sft" if kind == "fixed" else f"policy {iteration - 1}"
