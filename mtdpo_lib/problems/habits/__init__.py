"""The world of habits: generated questions, and a teacher that is wrong on purpose at a stated rate."""

from mtdpo_lib.problems.habits.generate import SUITES, make_problems, supply
from mtdpo_lib.problems.habits.teacher import RATES, make_demonstrations

__all__ = ["RATES", "SUITES", "make_demonstrations", "make_problems", "supply"]
