# feedback: only the first marker is taken out
def harmless(text, markers):
    while markers[0] in text:
        text = text.replace(markers[0], "")
    return text
