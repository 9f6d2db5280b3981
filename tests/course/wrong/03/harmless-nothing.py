# feedback: nothing is shown where there is a marker
def harmless(text, markers):
    return "" if any(one in text for one in markers) else text
