# feedback: lucky winners stay in
good = [
    one
    for one in trajectories
    for other in trajectories
    if reject({**one, "failed": []}, other, max_tokens) is None
]
pairs, paired_prompts = len(good), len({one["prompt"] for one in good})
