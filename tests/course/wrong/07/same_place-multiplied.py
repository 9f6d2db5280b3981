# feedback: eta is multiplied by the steps
reached = walk(start, utility, eta, steps, True)[2]
one_step_eta = eta * steps
