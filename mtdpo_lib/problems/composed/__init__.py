"""Composed problems: plans put together from pieces, verified demonstrations, errors that belong to a problem."""

from mtdpo_lib.problems.composed.generate import SUITES, make_demonstrations, make_problems, plan_of

__all__ = ["SUITES", "make_demonstrations", "make_problems", "plan_of"]
