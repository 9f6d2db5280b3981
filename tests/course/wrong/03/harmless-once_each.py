# feedback: each marker is taken out once
def harmless(text, markers):
    for marker in markers:
        text = text.replace(marker, "", 1)
    return text
