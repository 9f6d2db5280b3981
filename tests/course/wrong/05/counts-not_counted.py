# feedback: should be a whole number
pairs = paired_prompts = None
