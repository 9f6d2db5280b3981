# feedback: the limit of length is left out
good = [one for one in trajectories for other in trajectories if reject(one, other, 10**6) is None]
pairs, paired_prompts = len(good), len({one["prompt"] for one in good})
