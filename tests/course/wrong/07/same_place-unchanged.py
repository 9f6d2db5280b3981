# feedback: eta stays as it is
reached = walk(start, utility, eta, steps, True)[2]
one_step_eta = eta
