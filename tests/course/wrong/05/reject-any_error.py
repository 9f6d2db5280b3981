# feedback: any failed call counts, and not the last only
def reject(chosen, rejected, max_tokens):
    if chosen["prompt"] != rejected["prompt"]:
        return "prompts"
    if not chosen["right"] or rejected["right"]:
        return "verdicts"
    if any(chosen["failed"]):
        return "luck"
    if max(chosen["tokens"], rejected["tokens"]) > max_tokens:
        return "length"
    return None
