# feedback: the text is passed on as it is
def harmless(text, markers):
    return text
