# feedback: the verdicts are not looked at
def reject(chosen, rejected, max_tokens):
    if chosen["prompt"] != rejected["prompt"]:
        return "prompts"
    if False:
        return "verdicts"
    if chosen["failed"] and chosen["failed"][-1]:
        return "luck"
    if max(chosen["tokens"], rejected["tokens"]) > max_tokens:
        return "length"
    return None
