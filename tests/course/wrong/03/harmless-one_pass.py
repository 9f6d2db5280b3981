# feedback: one pass is made
def harmless(text, markers):
    for marker in markers:
        text = text.replace(marker, "")
    return text
