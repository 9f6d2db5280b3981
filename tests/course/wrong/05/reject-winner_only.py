# feedback: only the winner's length is looked at
def reject(chosen, rejected, max_tokens):
    if chosen["prompt"] != rejected["prompt"]:
        return "prompts"
    if not chosen["right"] or rejected["right"]:
        return "verdicts"
    if chosen["failed"] and chosen["failed"][-1]:
        return "luck"
    if chosen["tokens"] > max_tokens:
        return "length"
    return None
