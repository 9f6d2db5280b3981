# feedback: everything up to the last closing brace
def final_answer(text):
    import re

    found = re.findall(r"\\boxed\{(.*)\}", text)
    return found[-1] if found else None
