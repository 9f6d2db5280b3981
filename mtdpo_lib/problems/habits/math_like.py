"""The MATH-like suite: number theory, algebra, counting and sequences that need a program.

Seven families take two calls of the tool, and the second one needs a variable or the output of the first.
"""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

from mtdpo_lib.problems.habits.families import OUT, Case, Draw, Family, gives_up, right, wrong


def next_prime(draw: Draw) -> Case:
    """A power modulo the next prime: find p, then the power."""
    n, base, power = draw.numbers((10, 300), (2, 40), (5, 60))
    p = next(p for p in range(n + 1, 2 * n) if all(p % d for d in range(2, p)))
    question = draw.pick(
        f"Let p be the smallest prime greater than {n}. Find {base}^{power} mod p.",
        f"p is the first prime above {n}. What is the remainder of {base}^{power} divided by p?",
        f"Divide {base}^{power} by the smallest prime above {n}. What is the remainder?",
    )
    gold = pow(base, power, p)
    draw.need(gold not in (base * power % p, base**power % n, base**power % (n + 1 + n % 2)))
    find = f"p = {n}+1\nwhile any(p%d == 0 for d in range(2, p)):\n    p += 1\nprint(p)"
    odd = f"p = {n}+1\nwhile p%2 == 0:\n    p += 1\nprint(p)"
    take = f"Now take the power.\nprint(pow({base}, {power}, p))"
    return Case(question, str(gold)).by(
        power=right(f"Find p first.\n{find}", take),
        product=wrong(f"Find p first.\n{find}", f"Multiply mod p.\nprint({base}*{power}%p)"),
        odd=wrong(f"Take the next odd number.\n{odd}", take),
    )


def divisors(draw: Draw) -> Case:
    """The sum of the divisors, then a remainder; the mistake leaves the number itself out."""
    n, m = draw.numbers((12, 400), (7, 97))
    total = sum(d for d in range(1, n + 1) if n % d == 0)
    gold = total * total % m
    draw.need(gold not in ((total - n) ** 2 % m, 2 * total % m))
    question = draw.pick(
        f"Let s be the sum of the divisors of {n}. Find s^2 mod {m}.",
        f"Add all divisors of {n} and square the sum. What is the remainder after division by {m}?",
        f"s is the sum of all divisors of {n}. What is the remainder of s^2 divided by {m}?",
    )
    find = f"s = sum(d for d in range(1, {n}%s) if {n}%%d == 0)\nprint(s)"
    square = f"Square the sum.\nprint(s**2%{m})"
    return Case(question, str(gold)).by(
        square=right("Sum the divisors.\n" + find % "+1", square),
        short=wrong("Look at the numbers below.\n" + find % "", square),
        double=wrong("Sum the divisors.\n" + find % "+1", f"Double the sum.\nprint(s*2%{m})"),
    )


def digits(draw: Draw) -> Case:
    """The sum of the digits of a power, in base ten."""
    base, power, times = draw.numbers((2, 60), (6, 30), (2, 40))
    gold = times * sum(map(int, str(base**power)))
    question = draw.pick(
        f"Find the sum of the digits of {base}^{power}, times {times}.",
        f"What is {times} times the digit sum of {base}^{power}?",
        f"Multiply the sum of the digits of {base}^{power} by {times}.",
    )
    draw.need(gold != times * sum(map(int, str(base * power))))
    return Case(question, str(gold)).by(
        one=right(f"Write the power as text.\nprint({times}*sum(int(c) for c in str({base}**{power})))"),
        two=right(
            f"First the digit sum.\nprint(sum(int(c) for c in str({base}**{power})))",
            f"Now times {times}.\nprint({times}*{OUT})",
        ),
        product=wrong(f"Multiply and add digits.\nprint({times}*sum(int(c) for c in str({base}*{power})))"),
        length=wrong(f"Count the digits.\nprint({times}*len(str({base}**{power})))"),
    )


def multiples(draw: Draw) -> Case:
    """Multiples of one number or another; the usual mistake counts those of both twice."""
    n, a, b = draw.numbers((50, 900), (2, 12), (2, 12))
    draw.need(a < b and b % a != 0 and n >= math.lcm(a, b))
    gold = sum(x % a == 0 or x % b == 0 for x in range(1, n + 1))
    question = draw.pick(
        f"How many integers from 1 to {n} are multiples of {a} or {b}?",
        f"How many positive integers up to {n} can be divided by {a} or by {b}?",
        f"Count the numbers from 1 to {n} that are multiples of {a} or of {b}.",
        f"How many of the first {n} positive integers are divisible by {a} or {b}?",
        f"Of the integers from 1 to {n}, how many are multiples of {b} or {a}?",
    )
    return Case(question, str(gold)).by(
        test=right(f"Test each number.\nprint(sum(x%{a} == 0 or x%{b} == 0 for x in range(1, {n}+1)))"),
        twice=wrong(f"Count both kinds and add.\na = {n}//{a}\nb = {n}//{b}\nprint(a+b)"),
        both=wrong(
            f"Numbers divisible by both.\nprint(sum(x%{a} == 0 and x%{b} == 0 for x in range(1, {n}+1)))"
        ),
    )


def common_multiple(draw: Draw) -> Case:
    """The least common multiple and the greatest common divisor; an import is easily forgotten."""
    a, b, c = draw.numbers((12, 150), (12, 150), (2, 60))
    draw.need(a != b and math.gcd(a, b) > 1 and math.lcm(a, b) != max(a, b))
    gold = math.lcm(a, b) + c
    question = draw.pick(
        f"Find the least common multiple of {a} and {b}, plus {c}.",
        f"What is {c} more than the least common multiple of {a} and {b}?",
        f"Add {c} to the smallest number that both {a} and {b} divide.",
    )
    use = f"print(math.lcm({a}, {b})+{c})"
    return Case(question, str(gold)).by(
        lcm=right(f"Import math and use lcm.\nimport math\n{use}"),
        repaired=right(f"Use lcm.\n{use}", f"Import math first.\nimport math\n{use}"),
        product=wrong(f"Multiply the two.\nprint({a}*{b}+{c})"),
        guess=gives_up(f"Use lcm.\n{use}", a * b + c),
    )


def teams(draw: Draw) -> Case:
    """Choices of a team; the mistake counts the order."""
    n, k, extra = draw.numbers((6, 14), (2, 4), (2, 150))
    who, other, _ = draw.names
    gold = math.comb(n, k) + extra
    question = draw.pick(
        f"{who} picks a team of {k} from {n} people. Add {extra} to the number of possible teams.",
        f"In how many ways can {who} and {other} choose {k} of {n} people? "
        f"Add {extra} to the number of ways.",
        f"Let c be the number of ways in which {who} can choose {k} of {n} people. Find c+{extra}.",
    )
    use = f"print(math.comb({n}, {k})+{extra})"
    return Case(question, str(gold)).by(
        comb=right(f"Import math. Order does not matter.\nimport math\n{use}"),
        repaired=right(f"Use comb.\n{use}", f"Import math first.\nimport math\n{use}"),
        ordered=wrong(f"Choose one after another.\nimport math\nprint(math.perm({n}, {k})+{extra})"),
        guess=gives_up(f"Use comb.\n{use}", n * k + extra),
    )


def sequence(draw: Draw) -> Case:
    """A sequence, then one of its terms modulo m; the mistake is one place off."""
    first, second, n, m = draw.numbers((1, 20), (1, 20), (8, 30), (11, 97))
    terms = [first, second]
    while len(terms) < n + 2:
        terms.append(terms[-1] + terms[-2])
    draw.need(len({terms[i] % m for i in (n - 2, n - 1, n)}) == 3)
    question = draw.pick(
        f"A sequence starts {first}, {second}; each next term is the sum of the last two. "
        f"Find term {n} mod {m}.",
        f"Let a_1={first}, a_2={second} and each next term the sum of the two before. Find a_{n} mod {m}.",
        f"Each term is the sum of the two before it. The first are {first} and {second}. "
        f"What is term {n} mod {m}?",
    )
    make = f"a = [{first}, {second}]\nwhile len(a) < {n}+1:\n    a.append(a[-1]+a[-2])\nprint(len(a))"
    loop = f"a, b = {first}, {second}\nfor i in range(%s{n}-1):\n    a, b = b, a+b\nprint(a%%{m})"
    return Case(question, str(terms[n - 1] % m)).by(
        listed=right(f"List the terms.\n{make}", f"Term {n} has index {n - 1}.\nprint(a[{n}-1]%{m})"),
        index=wrong(f"List the terms.\n{make}", f"Take a[{n}].\nprint(a[{n}]%{m})"),
        loop=right("Step on in a loop.\n" + loop % ""),
        short=wrong("Repeat the sum.\n" + loop % "1, "),
    )


def roots(draw: Draw) -> Case:
    """A value at the larger root of a quadratic; the usual mistake takes the first root found."""
    small, large, c = draw.numbers((1, 30), (2, 40), (2, 30))
    draw.need(small < large)
    question = draw.pick(
        f"Let r be the larger root of x^2-{small + large}x+{small * large}=0. Find r^2+{c}r.",
        f"r is the larger solution of x^2-{small + large}x+{small * large}=0. What is r^2+{c}r?",
        f"The equation x^2-{small + large}x+{small * large}=0 has a larger root r. Find r^2+{c}r.",
    )
    find = f"r = [x for x in range(99) if x*x-{small + large}*x+{small * large} == 0]\nprint(r)"
    search = f"r = 0\nwhile r*r-{small + large}*r+{small * large}:\n    r += 1\nprint(r)"
    return Case(question, str(large**2 + c * large)).by(
        larger=right(f"Find both roots.\n{find}", f"Take the larger.\nr = max(r)\nprint(r**2+{c}*r)"),
        first=wrong(f"Find both roots.\n{find}", f"Use the first root.\nr = r[0]\nprint(r**2+{c}*r)"),
        stop=wrong(f"Search for a root.\n{search}", f"Put it in.\nprint(r**2+{c}*r)"),
    )


def system(draw: Draw) -> Case:
    """Two equations, then a product; the mistake adds or swaps."""
    x, y, a, b = draw.numbers((2, 30), (2, 30), (2, 9), (2, 9))
    total, gap = a * x + b * y, x - y
    draw.need(gap > 0 and x * y != x + y and not 0 <= (a - b) * gap < a + b)
    question = draw.pick(
        f"{a}x+{b}y={total} and x-y={gap}. Find xy.",
        f"Solve {a}x+{b}y={total} and x-y={gap}. What is x times y?",
        f"Two numbers have {a}x+{b}y={total} and x-y={gap}. What is their product?",
    )
    solve = f"y = ({total}-%s*{gap})//({a}+{b})\nprint(y)"
    search = f"for y in range(99):\n    if {a}*(y+{gap})+{b}*y == {total}:\n        print(y)"
    multiply = f"Then x and the product.\nx = y+{gap}\nprint(x*y)"
    return Case(question, str(x * y)).by(
        solve=right("Solve for y first.\n" + solve % a, multiply),
        search=right(f"Try all y.\n{search}", f"So y is {OUT}.\ny = {OUT}\nprint((y+{gap})*y)"),
        total=wrong("Solve for y first.\n" + solve % a, f"Add them.\nx = y+{gap}\nprint(x+y)"),
        swapped=wrong("Put x in.\n" + solve % b, multiply),
    )


def pairs(draw: Draw) -> Case:
    """Pairs with a sum that a number divides; the usual mistake counts both orders."""
    n, m, extra = draw.numbers((6, 60), (3, 12), (2, 99))
    gold = sum((x + y) % m == 0 for x, y in combinations(range(1, n + 1), 2)) + extra
    question = draw.pick(
        f"Count the pairs x<y from 1 to {n} with x+y a multiple of {m}, and add {extra}.",
        f"In how many ways can two of the numbers 1 to {n} have a sum divisible by {m}? Add {extra}.",
        f"Let c be the number of pairs x<y up to {n} with {m} dividing x+y. Find c+{extra}.",
    )
    loop = f"r = range(1, {n}+1)\nprint(sum((x+y)%%{m} == 0 for x in r for y in %s)+{extra})"
    use = f"c = combinations(range(1, {n}+1), 2)\nprint(sum(sum(p)%{m} == 0 for p in c)+{extra})"
    fix = f"from itertools import combinations\n{use}"
    return Case(question, str(gold)).by(
        below=right("Keep x below y.\n" + loop % f"range(x+1, {n}+1)"),
        repaired=right(f"Use combinations.\n{use}", f"Import it first.\n{fix}"),
        ordered=wrong("Try all x and y.\n" + loop % "r"),
        guess=gives_up(f"Use combinations.\n{use}", n * n // m + extra),
    )


def bases(draw: Draw) -> Case:
    """The digits of a number in another base, added up; the mistake stays in base ten or stops early."""
    n, base, c = draw.numbers((100, 999), (3, 9), (2, 30))
    written, rest = [], n
    while rest:
        written.append(rest % base)
        rest //= base
    gold = sum(written) * c
    draw.need(sum(map(int, str(n))) != sum(written))
    question = draw.pick(
        f"Write {n} in base {base} and add its digits. Multiply the sum by {c}.",
        f"Let s be the digit sum of {n} in base {base}. Find {c}s.",
        f"What is {c} times the sum of the base {base} digits of {n}?",
    )
    loop = f"n, s = {n}, 0\nwhile n %s:\n    s += n%%{base}\n    n //= {base}\nprint(s)"
    return Case(question, str(gold)).by(
        convert=right("Take digits off one by one.\n" + loop % "> 0", f"Multiply.\nprint(s*{c})"),
        short=wrong("Divide while it goes.\n" + loop % f">= {base}", f"Multiply.\nprint(s*{c})"),
        decimal=wrong(f"Add the digits.\nprint(sum(int(c) for c in str({n}))*{c})"),
    )


def dice(draw: Draw) -> Case:
    """The chance of a sum with two odd dice, as a fraction."""
    a, b = draw.numbers((4, 30), (4, 30))
    total = draw.number(3, a + b - 1)
    ways = sum(x + y == total for x in range(1, a + 1) for y in range(1, b + 1))
    gold = Fraction(ways, a * b)
    draw.need(gold != Fraction(1, a + b - 1) and ways > 0)
    question = draw.pick(
        f"Two dice have {a} and {b} sides. What is the chance that the sum is {total}?",
        f"Roll a die of {a} sides and one of {b} sides. What is the chance of a sum of {total}?",
        f"A die has {a} sides and another has {b}. Find the probability that they add up to {total}.",
    )
    use = f"n = sum(0 < {total}-x <= {b} for x in range(1, {a}+1))\nprint(Fraction(n, {a}*{b}))"
    fix = f"from fractions import Fraction\n{use}"
    return Case(question, str(gold)).by(
        count=right(f"Count the rolls.\n{fix}"),
        repaired=right(f"Write a fraction.\n{use}", f"Import it.\n{fix}"),
        sums=wrong(f"All sums are alike.\nfrom fractions import Fraction\nprint(Fraction(1, {a}+{b}-1))"),
        guess=gives_up(f"Write a fraction.\n{use}", Fraction(1, a + b - 1)),
    )


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (
        next_prime, divisors, digits, multiples, common_multiple, teams,
        sequence, roots, system, pairs, bases, dice,
    )
}  # fmt: skip
