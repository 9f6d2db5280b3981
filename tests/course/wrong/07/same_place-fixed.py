# feedback: the reference is never updated
reached = walk(start, utility, eta, steps, False)[2]
one_step_eta = eta / steps
