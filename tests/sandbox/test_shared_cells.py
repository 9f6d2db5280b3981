"""Cells that only calculate share an interpreter: nothing passes between sessions, and no result tells which one ran it."""

from __future__ import annotations

import ast
import random
from dataclasses import replace

import pytest
from test_attacks import ATTACKS
from test_fidelity import programs

from mtdpo_lib.profiles.sections import SandboxSettings
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.sandbox.process import WORKER

SETTINGS = SandboxSettings(workers=1, remember=False, million_instructions=200, seconds=600.0, memory_mib=128)
HEAVY = "{}"  # a dictionary is not on the list: from here the session has an interpreter of its own


@pytest.fixture(scope="module")
def guest() -> dict:
    """The names of the guest's code, loaded here to ask what is on the list; no cell runs here."""
    space: dict = {}
    for name in ("guest.py", "shared_cells.py"):
        exec(compile((WORKER / name).read_text("utf8"), name, "exec"), space)
    return space


@pytest.fixture(scope="module")
def calculates(guest):
    return lambda code: guest["_only_calculates"](ast.parse(code))


@pytest.fixture(scope="module")
def fresh():
    with SandboxPool(SETTINGS) as pool:
        yield pool


@pytest.mark.parametrize(
    "code",
    [
        "print(12*7 - 5)",
        "import math\nprint(math.lcm(4, 6) + math.pi)",
        "from math import comb, pi\ncomb(5, 2)",
        "from fractions import Fraction\nprint(Fraction(1, 3) + 1)",
        "total = 0\nfor d in range(1, 13):\n    if 12 % d == 0:\n        total += d\nprint(total)",
        "print(sum(x*x for x in range(9) if x % 2), max(n for n in [1, 2]), math.prod(k for k in [2, 3]))",
        "seq = [1, 1]\nwhile len(seq) < 9:\n    seq.append(seq[-1] + seq[-2])\nprint(seq[2:], f'{seq[-1]:>5}')",
        "print(undefined_name)",
        "for _ in range(3):\n    pass",
    ],
)
def test_what_models_write_is_on_the_list(calculates, code):
    assert calculates(code)


@pytest.mark.parametrize(
    "code",
    [
        "print(x for x in range(3))",  # shows an address
        "print(sum([], (x for x in range(3))))",  # sum returns its start
        "print(*(x for x in range(3)))",
        "sum = str\nprint(sum(x for x in range(3)))",
        "from math import pow as sum",
        "for max in [str]:\n    print(max(x for x in range(3)))",
        "x = [1]\nprint(x.append)",
        "import math\nmath.sqrt = abs",
        "import math\nmath.__dict__['sqrt'] = 1",
        "import sys",
        "from math import *",
        "import math as __builtins__",
        "from fractions import _gcd",
        "__builtins__",
        "print(__name__)",
        "getattr(print, '__self__')",
        "open('/etc/passwd')",
        "exec('1')",
        "eval('1')",
        "id(1)",
        "hash('a')",
        "globals()",
        "type(1)",
        "'{0.__class__}'.format(1)",
        "print(f'{x.__class__}')",
        "def f():\n    return 1",
        "f = lambda: 1",
        "class A:\n    pass",
        "print({1, 2})",
        "print({1: 2})",
        "(y := 3)",
        "try:\n    1/0\nexcept Exception:\n    pass",
        "with x:\n    pass",
        "del x",
        "x is y",
        "assert 1",
        "async def f(): pass",
        "print(map(str, [1]))",
        "print(b'a')",
    ],
)
def test_what_could_leave_a_trace_or_see_one_is_not(calculates, code):
    assert not calculates(code)


def test_of_the_attacks_only_those_on_time_and_size_are(guest):
    def passes(code):
        try:
            return guest["_only_calculates"](ast.parse(code))
        except SyntaxError:
            return False  # nothing of it runs

    found = {attack.name[3:] for attack in ATTACKS if passes(attack.code)}
    assert found <= {"endless_loop", "big_print", "endless_print", "big_power", "strange_text"}


def _numbers(draw: random.Random, depth: int) -> str:
    """An expression over the names a, b and xs, on the list; often wrong."""
    if depth == 0:
        return draw.choice(["a", "b", "xs", "c", str(draw.randint(-3, 30)), "2.5", "'7'", "xs[1]", "len(xs)"])
    one, two = _numbers(draw, depth - 1), _numbers(draw, depth - 1)
    return draw.choice([
        f"({one} {draw.choice(['+', '-', '*', '//', '%', '/', '**', '<', '==', 'in', 'and'])} {two})",
        f"({one} {draw.choice(['+', '-', '*'])} {two})",
        f"{draw.choice(['abs', 'int', 'str', 'float', 'sorted', 'list', 'print', 'round', 'math.isqrt', 'bool'])}({one})",
        f"{draw.choice(['max', 'min', 'pow', 'divmod', 'math.gcd', 'math.comb'])}({one}, {two})",
        f"sum({one} for k in range({draw.randint(0, 6)}) if {two})",
        f"[{one} for a in [{two}, 3]]",
        f"({one} if {two} else a)",
        f"f'{{{one}}}|{{{two}!r:>6}}'",
    ])  # fmt: skip


def _cell(draw: random.Random) -> str:
    lines = draw.choice([["import math"], ["from math import gcd as c"], []])
    for _ in range(draw.randint(0, 3)):
        value = _numbers(draw, 1)
        lines.append(
            draw.choice([f"a = {value}", f"xs.append({value})", f"b += {value}", f"xs[0] = {value}"])
        )
        lines.append(draw.choice([f"for k in xs:\n    print(k, {value})", f"if {value}:\n    b = 1", "pass"]))
    return "\n".join([*lines, draw.choice(["{}", "print({})", "b = {}\nb"]).format(_numbers(draw, 2))])


@pytest.mark.parametrize("cells", [700, pytest.param(4000, marks=pytest.mark.slow)])
def test_generated_cells_give_what_they_give_in_an_interpreter_of_their_own(calculates, fresh, cells):
    draw, shared, own, errors = random.Random(0), fresh.session(), fresh.session(), set()
    start = "a = 5\nb = 3\nxs = [4, 7]"
    own.run(HEAVY)
    assert shared.run(start).text == own.run(start).text
    for number in range(cells):
        cell = _cell(draw)
        assert calculates(cell), cell
        ours, theirs = shared.run(cell), own.run(cell)
        assert (ours.status, ours.error, ours.text) == (theirs.status, theirs.error, theirs.text), cell
        errors.add(ours.error)
        if number % 20 == 19:  # another pair, so that no value grows without end
            shared.close(), own.close()
            shared, own = fresh.session(), fresh.session()
            own.run(HEAVY)
            shared.run(start), own.run(start)
    assert {None, "TypeError", "ZeroDivisionError", "ValueError", "NameError"} <= errors


def test_the_fidelity_programs_that_share_give_what_they_give_in_an_interpreter_of_their_own(
    calculates, fresh
):
    def shares(program):
        try:
            return calculates(program)
        except SyntaxError:
            return True

    together = [program for program in programs() if shares(program)]
    assert len(together) > 80
    for program in together:
        with fresh.session() as one, fresh.session() as other:
            other.run(HEAVY)
            ours, theirs = one.run(program), other.run(program)
        assert (ours.status, ours.error, ours.text) == (theirs.status, theirs.error, theirs.text), program


def test_sessions_that_share_do_not_see_each_other(fresh):
    with fresh.session() as one, fresh.session() as other:
        assert one.run("x = 5\nimport math").text == "Result is not defined"
        assert other.run("print(x)").error == "NameError"
        assert other.run("print(math.pi)").error == "NameError"
        assert other.run("x = 6\nx").text == "6"
        assert one.run("x").text == "5"


def test_variables_move_with_a_session_that_gets_its_own(fresh):
    with fresh.session() as session:
        session.run("x = [1, 2]\nprint(x)")
        session.run("x.append(3)\n1/0")
        assert session.run("d = {'sum': sum(x)}\nprint(d)").text == "{'sum': 6}"
        assert session.run("x.append(d['sum'])\nx").text == "[1, 2, 3, 6]"


@pytest.mark.parametrize(
    ("hostile", "status"),
    [("while True:\n    pass", "timeout"), ("x = [0]\nwhile True:\n    x += x", "memory")],
)
def test_a_cell_that_takes_all_costs_the_others_nothing(fresh, hostile, status):
    with fresh.session() as one, fresh.session() as other:
        other.run("y = 41")
        result = one.run(hostile)
        assert result.status == status
        assert other.run("y += 1\ny").text == "42"
        other.run("z = {}")
        assert other.run("y").text == "42"


def test_a_long_calculation_gets_its_own_interpreter_and_an_answer(fresh):
    with fresh.session() as session:
        session.run("n = 50000")
        assert session.run("t = 0\nfor i in range(n):\n    t += i\nprint(t)").text == "1249975000"
        assert session.run("n + 1").text == "50001"


def test_many_sessions_one_after_another_leave_no_memory_behind():
    with SandboxPool(replace(SETTINGS)) as pool:
        for number in range(150):
            with pool.session() as session:
                assert session.run(f"x = [{number}] * 200000\nlen(x)").text == "200000"
                assert session.run("x[5]").text == str(number)
