"""The generated suites: questions, gold answers, splits, and the imperfect teacher."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
import re
import threading
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from random import Random

import pytest

from mtdpo_lib.problems import (
    RATES,
    SPLITS,
    SUITES,
    Demonstration,
    Problem,
    load_demonstrations,
    load_problems,
    make_demonstrations,
    make_problems,
    normalised,
    split_of,
)
from mtdpo_lib.problems.answers import is_correct
from mtdpo_lib.problems.habits import generate
from mtdpo_lib.problems.habits.families import build, slip
from mtdpo_lib.problems.habits.teacher import case_of, perform
from mtdpo_lib.problems.splits import SHARES
from mtdpo_lib.profiles import ProblemSettings

# Families whose most common strategy is wrong, written down here a second time on purpose.
WRONG_MODE = {
    "gsm-like": {"ages", "boxes", "trees"},
    "math-like": {"multiples", "roots", "pairs"},
}
# Families with a strategy whose second call needs a variable or the output of the first.
MULTI_CALL = {"next_prime", "divisors", "digits", "sequence", "roots", "system", "bases"}


@dataclass
class Result:
    text: str
    error: str | None = None


ONE_AT_A_TIME = threading.Lock()  # standard output belongs to the whole process


class TrustedSession:
    """Runs the teacher's own code, which we wrote, in this process. Never for a model's code."""

    def __init__(self):
        self.variables = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def run(self, code):
        out = io.StringIO()
        try:
            with ONE_AT_A_TIME, contextlib.redirect_stdout(out):
                exec(code, self.variables)
        except Exception as error:
            return Result(f"{type(error).__name__}: {error}", type(error).__name__)
        return Result(out.getvalue().strip())


class ForgetfulSession(TrustedSession):
    """Loses its variables between calls, as a stateless tool would."""

    def run(self, code):
        self.variables = {}
        return super().run(code)


SETTINGS = ProblemSettings(demonstrations=96)


@pytest.fixture(scope="module")
def problems():
    return {suite: make_problems(suite, "demonstrations", 1200, seed=0) for suite in SUITES}


@pytest.fixture(scope="module")
def demonstrations(problems):
    return {suite: make_demonstrations(problems[suite], 0, TrustedSession) for suite in SUITES}


@pytest.fixture(scope="module")
def outcomes(problems):
    """For every strategy: whether it was right, over all problems it applies to."""
    table = defaultdict(list)
    for suite in SUITES:
        for problem in problems[suite]:
            for name, plan in case_of(problem).plans.items():
                _, answer = perform(problem.question, plan, TrustedSession)
                table[suite, problem.family, name, plan.reliable].append(is_correct(answer, problem.answer))
    return table


# ---- questions and splits


def test_at_least_ten_families_a_suite():
    assert all(len(families) >= 10 for families in SUITES.values())
    assert {suite: set(table) for suite, table in RATES.items()} == {s: set(f) for s, f in SUITES.items()}


@pytest.mark.parametrize("suite", SUITES)
def test_same_seed_same_problems_and_another_seed_others(suite):
    first = make_problems(suite, "preference", 60, seed=3)
    assert first == make_problems(suite, "preference", 60, seed=3)
    other = make_problems(suite, "preference", 60, seed=4)
    assert len({p.question for p in first} & {p.question for p in other}) < 6


@pytest.mark.parametrize("suite", SUITES)
def test_a_larger_count_begins_with_the_same_problems(suite):
    assert make_problems(suite, "test", 100, seed=1)[:37] == make_problems(suite, "test", 37, seed=1)


@pytest.mark.parametrize("suite", SUITES)
def test_splits_share_no_question_over_seeds(suite):
    seen = {
        split: {normalised(p.question) for seed in range(3) for p in make_problems(suite, split, 240, seed)}
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not seen[one] & seen[other]
    assert all(split_of(question) == split for split in SPLITS for question in seen[split])


def test_the_split_ignores_case_and_spacing_and_follows_its_shares():
    assert split_of("How  many\napples?") == split_of("how many APPLES? ")
    counts = Counter(split_of(f"question {i}") for i in range(5000))
    for split, share in SHARES.items():
        assert counts[split] / 5000 == pytest.approx(share / 100, abs=0.025)


@pytest.mark.parametrize("suite", SUITES)
def test_families_take_turns_and_questions_and_ids_are_distinct(suite, problems):
    counts = Counter(p.family for p in problems[suite])
    assert set(counts) == set(SUITES[suite]) and max(counts.values()) - min(counts.values()) <= 1
    assert len({normalised(p.question) for p in problems[suite]}) == len(problems[suite])
    assert len({p.id for p in problems[suite]}) == len(problems[suite])
    assert all(p.id.startswith(f"{suite}/demonstrations/{p.family}/") for p in problems[suite])


@pytest.mark.parametrize(
    ("suite", "family"), [(suite, family) for suite in SUITES for family in SUITES[suite]]
)
def test_a_family_has_at_least_20000_questions(suite, family):
    """Birthday estimate: n draws of N equally likely questions collide in about n^2 / 2N pairs."""
    draws = 1500
    counts = Counter(build(SUITES[suite][family], f"{key:012x}").question for key in range(draws))
    collisions = sum(n * (n - 1) // 2 for n in counts.values())
    assert collisions <= draws**2 / (2 * 20_000)


def test_an_exhausted_family_says_what_to_do(monkeypatch):
    ages = SUITES["gsm-like"]["ages"]
    monkeypatch.setitem(SUITES, "gsm-like", {"ages": lambda draw: build(ages, str(draw.number(0, 9)))})
    monkeypatch.setattr(generate, "PATIENCE", 100)
    with pytest.raises(
        ValueError, match=r"only .* distinct questions in split 'test' where 50 are wanted: ask for fewer\."
    ):
        make_problems("gsm-like", "test", 50, seed=0)
    with pytest.raises(
        ValueError, match=r"answers up to 1 in .*: ask for fewer or raise problems\.largest_answer=1\."
    ):
        make_problems("gsm-like", "test", 50, seed=0, largest_answer=1)


@pytest.mark.parametrize(
    ("suite", "split", "count", "message"),
    [
        ("gsm", "test", 1, "Unknown suite 'gsm'; take one of gsm-like, math-like"),
        ("gsm-like", "train", 1, "Unknown split 'train'; take one of demonstrations"),
        ("gsm-like", "test", -1, "must not be negative"),
    ],
)
def test_wrong_requests_are_refused(suite, split, count, message):
    with pytest.raises(ValueError, match=message):
        make_problems(suite, split, count, seed=0)


def test_half_of_the_word_problems_carry_a_distractor(problems):
    distractor = re.compile(r"\. \w+ (is \d+ years old|waits \d+ minutes|walks \d+ km)\.|^\w+ waits")
    for family in SUITES["gsm-like"]:
        questions = [p.question for p in problems["gsm-like"] if p.family == family]
        share = sum(bool(distractor.search(question)) for question in questions) / len(questions)
        assert 0.3 < share < 0.7, (family, share)


# ---- gold answers, computed a second time from the question's text alone


def numbers(question):
    return [int(n) for n in re.findall(r"\d+", question)]


def brute_next_prime(question):
    base, power = map(int, re.search(r"(\d+)\^(\d+)", question).groups())
    (above,) = map(int, re.search(r"(?:than|above) (\d+)", question).groups())
    sieve = [n for n in range(2, 1000) if not any(n % k == 0 for k in range(2, math.isqrt(n) + 1))]
    prime = min(p for p in sieve if p > above)
    value = 1
    for _ in range(power):
        value = value * base % prime
    return value


def brute_multiples(question):
    if question.startswith("Of the"):
        _, n, b, a = numbers(question)
    elif question.startswith("How many of"):
        n, a, b = numbers(question)
    else:
        *_, n, a, b = numbers(question)
    return len(set(range(a, n + 1, a)) | set(range(b, n + 1, b)))


def brute_pairs(question):
    m = int(re.search(r"(?:multiple of|divisible by|with) (\d+)", question)[1])
    n = int(re.search(r"(?:1 to|up to) (\d+)", question)[1])
    extra = int(re.search(r"(?:[aA]dd |c\+)(\d+)", question)[1])
    return extra + sum(1 for y in range(1, n + 1) for x in range(1, y) if not (x + y) % m)


def brute_roots(question):
    s, q, c = map(int, re.search(r"x\^2-(\d+)x\+(\d+)=0.*r\^2\+(\d+)r", question).groups())
    r = (s + math.isqrt(s * s - 4 * q)) // 2
    assert r * r - s * r + q == 0
    return r * r + c * r


def brute_system(question):
    a, b, total, gap = map(int, re.search(r"(\d+)x\+(\d+)y=(\d+) and x-y=(\d+)", question).groups())
    ((x, y),) = [(x, y) for x in range(100) for y in range(100) if a * x + b * y == total and x - y == gap]
    return x * y


def brute_dice(question):
    a, b, total = numbers(question)
    rolls = list(itertools.product(range(1, a + 1), range(1, b + 1)))
    return Fraction(len([roll for roll in rolls if sum(roll) == total]), len(rolls))


def brute_common_multiple(question):
    found = numbers(question)
    a, b, c = found if question.startswith("Find") else [*found[1:], found[0]]
    return next(n for n in itertools.count(a, a) if n % b == 0) + c


def brute_growing(question):
    first = int(re.search(r"(?:finds|sells|makes) (\d+)", question)[1])
    step = int(re.search(r"(\d+) more", question)[1])
    days = int(re.search(r"in (\d+) days", question)[1])
    total, today = 0, first
    for _ in range(days):
        total, today = total + today, today + step
    return total


def brute_fence(question):
    long, wide = map(int, re.search(r"(\d+) m (?:long and|by) (\d+) m", question).groups())
    price = int(re.search(r"costs (\d+) dollars", question)[1])
    return sum(price for _ in range(long)) * 2 + sum(price for _ in range(wide)) * 2


def brute_percent(question):
    stock = int(re.search(r"(?:has|Of) (\d+)", question)[1])
    share = int(re.search(r"(\d+) percent", question)[1])
    more = int(re.search(r"(?:sells|then|takes) (\d+) (?:more|of)", question)[1])
    return Fraction(stock) * (100 - share) / 100 - more


@pytest.mark.parametrize(
    ("suite", "oracle"),
    [("math-like", f) for f in (brute_next_prime, brute_multiples, brute_pairs, brute_roots, brute_system)]
    + [("math-like", f) for f in (brute_dice, brute_common_multiple)]
    + [("gsm-like", f) for f in (brute_growing, brute_fence, brute_percent)],
)
def test_gold_answers_from_the_text_alone(suite, oracle, problems):
    family = oracle.__name__.removeprefix("brute_")
    chosen = [p for p in problems[suite] if p.family == family]
    assert len(chosen) >= 50
    for problem in chosen:
        assert str(oracle(problem.question)) == problem.answer, problem


# ---- the teacher


def test_reliable_strategies_are_right_and_the_others_hardly_ever(outcomes):
    for (suite, family, name, reliable), right in outcomes.items():
        share = sum(right) / len(right)
        if reliable:
            assert share == 1, (suite, family, name, share)
        else:
            assert share <= (0.25 if name == "mental" else 0.0), (suite, family, name, share)


def test_every_strategy_of_the_table_exists_and_its_rates_add_up(outcomes):
    known = {(suite, family, name) for suite, family, name, _ in outcomes}
    table = {
        (suite, family, name) for suite in RATES for family in RATES[suite] for name in RATES[suite][family]
    }
    assert known == table
    for suite in RATES:
        for family, rates in RATES[suite].items():
            assert sum(rates.values()) == pytest.approx(1), family


def test_the_table_gives_the_stated_regime(outcomes):
    reliable = {(suite, family, name) for suite, family, name, is_reliable in outcomes if is_reliable}
    for suite in RATES:
        wrong_mode = set()
        for family, rates in RATES[suite].items():
            good = sum(rate for name, rate in rates.items() if (suite, family, name) in reliable)
            assert 0.30 <= good <= 0.70, family
            if (suite, family, max(rates, key=rates.get)) not in reliable:
                wrong_mode.add(family)
        assert wrong_mode == WRONG_MODE[suite]
        assert 0.25 <= len(wrong_mode) / len(RATES[suite]) <= 0.30


@pytest.mark.parametrize("suite", SUITES)
def test_measured_rates_match_the_table(suite, problems, demonstrations):
    """Expected counts from the table, scaled over the strategies that apply to each question."""
    expected, measured = Counter(), Counter((d.problem.family, d.strategy) for d in demonstrations[suite])
    for problem in problems[suite]:
        rates = RATES[suite][problem.family]
        applies = {name: rates[name] for name in case_of(problem).plans}
        for name, rate in applies.items():
            expected[problem.family, name] += rate / sum(applies.values())
    for key, count in expected.items():
        assert abs(measured[key] - count) <= 4 * math.sqrt(count), (key, count, measured[key])


@pytest.mark.parametrize("suite", SUITES)
def test_measured_right_shares(suite, demonstrations):
    assert 0.50 <= sum(d.correct for d in demonstrations[suite]) / len(demonstrations[suite]) <= 0.62
    families = defaultdict(list)
    for one in demonstrations[suite]:
        families[one.problem.family].append(one.correct)
    for family, right in families.items():
        assert 0.28 <= sum(right) / len(right) <= 0.80, family


def test_demonstrations_depend_on_seed_and_problem_only(problems, demonstrations):
    suite = "math-like"
    some = problems[suite][:60]
    assert make_demonstrations(some[::-1], 0, TrustedSession)[::-1] == demonstrations[suite][:60]
    strategies = [d.strategy for d in make_demonstrations(some, 1, TrustedSession)]
    assert strategies != [d.strategy for d in demonstrations[suite][:60]]


def test_messages_are_what_the_tool_said(demonstrations):
    for one in itertools.chain(*demonstrations.values()):
        roles = [message["role"] for message in one.messages]
        calls = len(roles) // 2 - 1
        assert roles == ["user", *["assistant", "tool"] * calls, "assistant"]
        assert one.messages[0]["content"] == one.problem.question
        session = TrustedSession()
        for said, heard in zip(one.messages[1:-1:2], one.messages[2:-1:2], strict=True):
            code = re.fullmatch(r"[^\n]+\n```python\n(.*)\n```", said["content"], re.S)[1]
            assert session.run(code).text == heard["content"]
        (boxed,) = re.findall(r"\\boxed\{(.*?)\}", one.messages[-1]["content"])
        assert is_correct(boxed, one.problem.answer) == one.correct
        if calls and not heard["content"].startswith("NameError"):
            assert boxed == heard["content"]


def test_every_kind_of_mistake_occurs(demonstrations):
    def having(suite, *strategies):
        return [d for d in demonstrations[suite] if d.strategy in strategies]

    assert all(d.messages[1]["content"].startswith("In my head") for d in having("gsm-like", "mental"))
    assert having("gsm-like", "mental") and having("gsm-like", "misread")
    assert any("range(1, " in d.messages[1]["content"] for d in having("gsm-like", "short"))
    for suite in SUITES:
        repaired, given_up = having(suite, "repaired"), having(suite, "guess")
        assert repaired and all(d.correct for d in repaired)
        assert given_up and not any(d.correct for d in given_up)
        for one in repaired + given_up:
            assert re.fullmatch(r"NameError: name '\w+' is not defined.*", one.messages[2]["content"])


def test_later_calls_need_the_state_of_earlier_ones(problems):
    """In a tool without memory the second call fails; those that quote the output fail without the output."""
    needing = set()
    for problem in problems["math-like"]:
        for name, plan in case_of(problem).plans.items():
            if len(plan.calls) < 2 or name == "repaired":
                continue
            messages, _ = perform(problem.question, plan, TrustedSession)
            forgotten, _ = perform(problem.question, plan, ForgetfulSession)
            quotes = "<out>" in plan.calls[1][1] and messages[2]["content"] in messages[3]["content"]
            assert quotes or forgotten[-2]["content"].startswith("NameError"), (problem.family, name)
            needing.add(problem.family)
    assert needing == MULTI_CALL and len(needing) >= 5


def test_a_right_and_a_wrong_plan_part_at_the_first_word(problems):
    """Pairs that differ in one late digit teach nothing: plans part at the first word of a message."""
    for suite in SUITES:
        for problem in problems[suite][:240]:
            told = {
                plan: [message["content"] for message in perform(problem.question, plan, TrustedSession)[0]]
                for plan in case_of(problem).plans.values()
            }
            for good, bad in itertools.product(told, told):
                if good.reliable and not bad.reliable:
                    one, other = next(pair for pair in zip(told[good], told[bad]) if pair[0] != pair[1])
                    assert one.split()[0] != other.split()[0], (problem.family, one, other)


def test_texts_are_short(demonstrations):
    limits = {"gsm-like": (35, 65, 350), "math-like": (25, 85, 420)}
    for suite, (question_words, words, characters) in limits.items():
        for one in demonstrations[suite]:
            text = "\n".join(message["content"] for message in one.messages)
            assert len(one.problem.question.split()) <= question_words, one.problem.question
            assert len(text.split()) <= words and len(text) <= characters, text
            assert re.fullmatch(r"-?\d{1,5}(/\d{1,4})?", one.problem.answer), one.problem
            for message in one.messages:
                if message["role"] == "tool":
                    assert 0 < len(message["content"]) <= 45 and "\n" not in message["content"]


def test_slips_are_near_and_never_right():
    for gold in (0, 7, 31, 88, 120, 999, 4096):
        said = {slip(gold, Random(seed)) for seed in range(60)}
        assert gold not in said and all(value >= 0 for value in said) and len(said) > 1


def test_a_foreign_problem_is_refused():
    problem = Problem("gsm-like/test/packs/0", "gsm-like", "packs", "What is 1+1?", "2", notes="00ff")
    with pytest.raises(ValueError, match="does not know problem"):
        make_demonstrations([problem], 0, TrustedSession)


# ---- entries


def test_records_survive_a_round_trip(demonstrations):
    one = demonstrations["math-like"][0]
    assert Demonstration.from_dict(asdict(one)) == one


def test_load_problems_interleaves_the_suites():
    loaded = load_problems(SETTINGS, "development", 51, seed=0)
    assert [p.suite for p in loaded[:4]] == ["gsm-like", "math-like", "gsm-like", "math-like"]
    assert Counter(p.suite for p in loaded) == {"gsm-like": 26, "math-like": 25}
    assert loaded[:20] == load_problems(SETTINGS, "development", 20, seed=0)


def test_load_demonstrations_counts_what_it_made():
    ticks = []
    made, report = load_demonstrations(SETTINGS, 5, TrustedSession, lambda *tick: ticks.append(tick))
    assert len(made) == report["total"] == 96 and ticks[-1] == (96, 96)
    assert report["correct"] == sum(d.correct for d in made) and report["dropped"] == {}
    assert report["suite"]["gsm-like"]["total"] == 48 and len(report["family"]) == 24
    assert sum(cell["total"] for cell in report["strategy"].values()) == 96
    assert all(split_of(d.problem.question) == "demonstrations" for d in made)


def test_results_stand_below_logs_of_every_length_and_the_rest_stays():
    plain, _ = load_demonstrations(SETTINGS, 5, TrustedSession)
    below, _ = load_demonstrations(replace(SETTINGS, log_lines=3), 5, TrustedSession)
    lengths = Counter()
    for one, other in zip(plain, below, strict=True):
        assert (one.problem, one.strategy, one.correct) == (other.problem, other.strategy, other.correct)
        for message, changed in zip(one.messages, other.messages, strict=True):
            if message["role"] == "tool":
                assert changed["content"].endswith(message["content"])
                log = changed["content"].removesuffix(message["content"])
                lengths[log.count("\n")] += 1
            else:
                assert changed == message
    assert set(lengths) == {0, 1, 2, 3} and min(lengths.values()) > 0.1 * lengths.total()


def test_a_few_families_and_small_answers_can_be_asked_for():
    problems = make_problems("math-like", "test", 12, seed=0, families=2, largest_answer=20)
    assert [one.family for one in problems] == list(SUITES["math-like"])[:2] * 6
    assert all(int(one.answer) <= 20 for one in problems)
    assert max(int(one.answer) for one in make_problems("math-like", "test", 12, seed=0, families=2)) > 20
