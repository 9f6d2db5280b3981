# feedback: exactly max_tokens is already too long
def reject(chosen, rejected, max_tokens):
    if chosen["prompt"] != rejected["prompt"]:
        return "prompts"
    if not chosen["right"] or rejected["right"]:
        return "verdicts"
    if chosen["failed"] and chosen["failed"][-1]:
        return "luck"
    if max(chosen["tokens"], rejected["tokens"]) >= max_tokens:
        return "length"
    return None
