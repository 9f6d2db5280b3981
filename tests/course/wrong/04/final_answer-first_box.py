# feedback: the first box is taken
def final_answer(text):
    import re

    found = re.search(r"\\boxed\{([^}]*)\}", text)
    return found[1] if found else None
