# feedback: as if the policy chose its outcome
lucky = ("policy", gamble[1])
best = value(("policy", [(0.5, sure), (0.5, lucky)]), eta)
gambles = gibbs([0.5, 0.5], [sure, value(lucky, eta)], eta)[1]
