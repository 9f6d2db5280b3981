"""Experiments: Algorithm 1 as kept steps, arms of it, and all of them over seeds and machines."""
