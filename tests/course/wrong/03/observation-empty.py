# feedback: an empty output stays empty
def observation(status, text, limit):
    if status == "timeout":
        return "Timeout Error"
    if status == "error":
        return text.strip().splitlines()[-1]
    text = text.strip()
    cut, half = len(text) - limit, limit // 2
    if cut > 0:
        return text[: limit - half] + f"[... {cut} characters cut ...]" + text[len(text) - half :]
    return text
