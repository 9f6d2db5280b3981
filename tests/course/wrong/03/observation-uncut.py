# feedback: the output is not cut
def observation(status, text, limit):
    if status == "timeout":
        return "Timeout Error"
    if status == "error":
        return text.strip().splitlines()[-1]
    text = text.strip()
    cut, half = len(text) - limit, limit // 2
    if cut > 0:
        return text
    return text or "Result is not defined"
