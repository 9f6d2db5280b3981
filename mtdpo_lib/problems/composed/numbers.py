"""Numbers, the MATH-like suite: pieces of number theory, each about numbers or an earlier piece. It needs a program."""

from __future__ import annotations

from functools import partial

from mtdpo_lib.problems.composed.plan import DECIDED, Draw, Plan, Step, compare, decide

LETTERS = "abcdefgh"

PRIME = "next(i for i in range({v} + 1, 9999) if all(i % j for j in range(2, i)))"
# Each piece: how it is called, its code, and the range of its n. {v} is a number or the letter of an earlier piece.
PIECES = {
    "gcd": ("the gcd of {v} and {n}", "math.gcd({v}, {n})", (6, 90)),
    "lcm": ("the lcm of {v} and {n}", "math.lcm({v}, {n})", (2, 12)),
    "digits": ("the digit sum of {v} times {n}", "sum(map(int, str({v} * {n})))", (11, 99)),
    "divisors": ("the number of divisors of {v}", "sum({v} % i == 0 for i in range(1, {v} + 1))", (2, 9)),
    "prime": ("the smallest prime above {v}", PRIME, (2, 9)),
    "power": ("the remainder of {v} to the power {n} divided by {m}", "{v}**{n} % {m}", (2, 9)),
    "choose": ("the number of pairs from {v} things", "math.comb({v}, 2)", (2, 9)),
    "multiples": ("the number of multiples of {n} up to {v}", "len(range({n}, {v} + 1, {n}))", (2, 9)),
    "plus": ("{v} plus {n}", "{v} + {n}", (2, 60)),
    "minus": ("{v} minus {n}", "{v} - {n}", (2, 60)),
    "times": ("{v} times {n}", "{v} * {n}", (2, 9)),
    "from": ("{n} minus {v}", "{n} - {v}", (20, 99)),
}  # fmt: skip
LEAVES = ("gcd", "lcm", "digits", "divisors", "prime", "power", "choose")  # may stand on a plain number
WORDINGS = ("Let {x} be {what}.", "{x} is {what}.", "Take {x} to be {what}.")


def _piece(draw: Draw, letter: str) -> Step:
    """A piece about a number where it is the first or with a chance of 0.2, else about an earlier piece."""
    is_leaf = not draw.steps or draw.chance(0.2)
    kind = draw.pick(LEAVES if is_leaf else tuple(PIECES))
    what, code, (low, high) = PIECES[kind]
    on = None if is_leaf else draw.earlier()
    names = {"v": on.name if on else draw.number(6, 60), "n": draw.number(low, high), "m": draw.number(5, 40)}
    sentence = draw.pick(WORDINGS).format(x=letter, what=what.format(**names))
    return Step(letter, sentence, code.format(**names), kind, (on.name,) if on else ())


def _asked(draw: Draw) -> tuple[str, str]:
    """The question, and the expression it asks for."""
    last, other = draw.steps[-1].name, draw.pick(draw.steps[:-1]).name
    words, code = draw.pick((
        (last, last), (f"{last} plus {other}", f"{last} + {other}"), (f"{other} times {last}", f"{other} * {last}"),
        (f"the sum of {other} and {last}", f"{other} + {last}"), (f"{last} minus {other}", f"{last} - {other}"),
    ))  # fmt: skip
    return draw.pick((f"Find {words}.", f"What is {words}?", f"Compute {words}.")), code


def number_problem(draw: Draw, level: int) -> Plan:
    """A problem of `level` + 1 or `level` + 2 pieces."""
    for letter in LETTERS[: level + draw.number(1, 2)]:
        draw.add(partial(_piece, draw, letter))
    if draw.chance(DECIDED * 0.3):
        decision = compare(draw, lambda pair: f"Look at {pair}.")
        return Plan(tuple(draw.steps), "", decision.shown, (), decision)
    request, result = _asked(draw)
    draw.need(draw.value(result) >= 1)
    decision = decide(draw, result) if draw.chance(DECIDED * 0.85) else None
    return Plan(tuple(draw.steps), request, result, (), decision)
