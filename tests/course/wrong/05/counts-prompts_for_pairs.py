# feedback: prompts are counted
good = [one for one in trajectories for other in trajectories if reject(one, other, max_tokens) is None]
pairs = paired_prompts = len({one["prompt"] for one in good})
