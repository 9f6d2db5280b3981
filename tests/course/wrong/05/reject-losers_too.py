# feedback: losers that end with an error are dropped too
def reject(chosen, rejected, max_tokens):
    if chosen["prompt"] != rejected["prompt"]:
        return "prompts"
    if not chosen["right"] or rejected["right"]:
        return "verdicts"
    if any(one["failed"] and one["failed"][-1] for one in (chosen, rejected)):
        return "luck"
    if max(chosen["tokens"], rejected["tokens"]) > max_tokens:
        return "length"
    return None
