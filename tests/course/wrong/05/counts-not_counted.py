# feedback: should be a whole number
# mistake: the numbers are not computed
pairs = paired_prompts = None
