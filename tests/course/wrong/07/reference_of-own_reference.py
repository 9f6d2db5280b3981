# feedback: is its own reference
def reference_of(iteration, kind):
    return "sft" if kind == "fixed" else f"policy {iteration}"
