"""The stages' keys, held against what really ran: all stages once, at a size of seconds, every function noted.

A key must change with every function that its stage runs, and no stage may read a setting that is not in its key.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import pkgutil
import shutil
import sys
from pathlib import Path

import pytest
from support import judged

import mtdpo_lib
from mtdpo_lib.common.code_key import CodeBase, Place, code_key
from mtdpo_lib.common.files import DATA
from mtdpo_lib.experiment import steps
from mtdpo_lib.experiment.algorithm1 import Experiment
from mtdpo_lib.experiment.study import Planned, many_samples
from mtdpo_lib.problems import Questions
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.rollout import Trajectory

LIBRARY = Path(mtdpo_lib.__file__).parent
STAGES = (
    steps.Demonstrations, steps.Base, steps.SFT, steps.Rollouts, steps.Pairs, steps.Training, steps.Selection,
    steps.Evaluation, steps.ManySamples,
)  # fmt: skip
# Small, with everything switched on that has code of its own; a sandbox of its own starts its worker here.
SETTINGS = [
    "iterations=1", "problems.demonstrations=24", "problems.prompts_per_iteration=8", "problems.development=2",
    "problems.test=4", "sft.epochs=1", "sft.early_epochs=1", "evaluation.sampled=2", "preference.checkpoints=1",
    "preference.stochastic_tool_correction=2", "rollout.tool_noise=0.3", "rollout.max_new_tokens=24",
    "sandbox.seconds=9.5",
]  # fmt: skip


def hidden(settings):
    return {item.name for item in dataclasses.fields(settings) if not item.metadata.get("in_stage_key", True)}


@functools.cache
def watchful(kind):
    class Watchful(kind):
        def __getattribute__(self, name):
            # `replace` and `asdict` copy all fields, which decides nothing.
            if name in hidden(kind) and sys._getframe(1).f_globals["__name__"] not in ("dataclasses", "copy"):
                raise AssertionError(f"a stage reads {kind.__name__}.{name}, which is not in its key")
            return super().__getattribute__(name)

    return Watchful


def guarded(value):
    """Settings that fail when a field is read that is not in a key."""
    if isinstance(value, steps.Sampling):
        return steps.Sampling(**{name: guarded(part) for name, part in vars(value).items()})
    is_settings = dataclasses.is_dataclass(value) and type(value).__module__.startswith("mtdpo_lib.profiles")
    if not is_settings or not hidden(value):
        return value
    copy = object.__new__(watchful(type(value)))
    vars(copy).update(vars(value))
    return copy


@contextlib.contextmanager
def noting(found):
    """Notes the code of every function that runs, in all threads."""
    monitoring, tool = sys.monitoring, sys.monitoring.PROFILER_ID

    def note(code, offset):
        found.add(code)
        return monitoring.DISABLE

    monitoring.use_tool_id(tool, "functions")
    monitoring.restart_events()
    monitoring.register_callback(tool, monitoring.events.PY_START, note)
    monitoring.set_events(tool, monitoring.events.PY_START)
    try:
        yield
    finally:
        monitoring.set_events(tool, 0)
        monitoring.free_tool_id(tool)


def watched(make, found):
    @functools.wraps(make)
    def watching(folder, **inputs):
        with noting(found):
            make(folder, **{name: guarded(value) for name, value in inputs.items()})

    return staticmethod(watching)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """By stage: the file and the first line of every function of the library that it ran."""
    for module in pkgutil.walk_packages([str(LIBRARY)], "mtdpo_lib."):
        if "worker" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)  # what runs at import is not what a stage runs
    experiment = Experiment(get_profile("smoke", SETTINGS), 0, tmp_path_factory.mktemp("steps"))
    codes = {stage: set() for stage in STAGES}
    with pytest.MonkeyPatch.context() as patch:
        for stage in STAGES:
            patch.setattr(stage, "make", watched(stage.make, codes[stage]))
        sft = experiment.sft_policy()
        judged(experiment.rollouts(1, experiment.sources(1, [sft])), lambda problem, sample: sample % 2 == 0)
        policy = experiment.iteration(1, [sft]).policy
        assert set(experiment.outcomes(policy)) == {"greedy", "sampled"}
        many_samples(experiment, policy)
        experiment.make(steps.Base, "base", base=str(DATA / "base"), content="", dtype="float32", template="")
    return {
        stage: {
            (Path(code.co_filename).relative_to(LIBRARY).as_posix(), code.co_firstlineno)
            for code in found
            if code.co_filename.startswith(str(LIBRARY)) and code.co_name != "<module>"
        }
        for stage, found in codes.items()
    }


class Drawn:
    """Stands for `Sampling`: notes the seed of each policy's samples and makes one trajectory."""

    def __init__(self):
        self.seeds = []

    def sample(self, policy, problems, samples, what, seed, temperature=None, journal=None):
        self.seeds.append(seed)
        return [Trajectory("p", "s", "q", "1", policy.name, 0, [1], [1], [], "1", True, "answer")]


def test_problems_sampled_often_are_drawn_from_all_families(tmp_path):
    class Right:
        seed = 0

        def sample(self, policy, problems, samples, *_):
            return [
                Trajectory(one.id, "s", "q", "1", "x", 0, [1], [1], [], "1", True, "answer")
                for one in problems
            ]

    questions = Questions("test", 1008)
    for name in ("one", "other"):
        folder = tmp_path / name
        folder.mkdir()
        steps.ManySamples.make(folder, name, questions, 120, 64, 0.7, Right())
    one, other = (steps.ManySamples("samples", "key", tmp_path / name).right for name in ("one", "other"))
    assert one == other and len(one) == 120 and set(one.values()) == {1}
    assert {key.partition("/")[0] for key in one} == {"gsm-like", "math-like"}
    assert len({tuple(key.split("/")[:3]) for key in one}) == 24


def test_random_numbers_belong_to_the_role_and_the_iteration(tmp_path):
    def seeds(arm, number=1, seed=0, changes=()):
        experiment = Planned(get_profile("smoke", changes), seed, tmp_path)
        policies = [
            experiment.sft_policy(),
            *(experiment.iteration(1, [experiment.sft_policy()], arm=arm).policy,) * (number - 1),
        ]
        rollouts, drawn = experiment.rollouts(number, experiment.sources(number, policies)), Drawn()
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        rollouts.make(folder, **{**rollouts.inputs, "sampling": drawn})
        told = [
            row.policy for row in steps.Rollouts("rollouts", "key", folder, rollouts.inputs).trajectories()
        ]
        assert told == [policy.name for policy, _ in rollouts.inputs["sources"]]
        return drawn.seeds

    mdpo = seeds("mdpo")
    assert len(set(mdpo)) == 2, "the two policies of an iteration do not share their numbers"
    assert seeds("other", 2) == seeds("mdpo", 2), "nor do arms differ in theirs"
    alone = seeds("mdpo", changes=["rollout.samples_previous=0", "rollout.samples_current=6"])
    assert alone == mdpo[:1]
    others = [seeds("mdpo", 2), seeds("mdpo", seed=1), seeds("mdpo", changes=["rollout.replicate=1"])]
    assert len({number for row in (mdpo, *others) for number in row}) == 8


def test_every_stage_was_seen_at_work(ran):
    for stage in STAGES:
        assert any(file == "experiment/steps.py" for file, _ in ran[stage]), stage.__name__


@functools.cache
def library():
    return CodeBase(LIBRARY.parent, "mtdpo_lib")


@functools.cache
def covered(stage):
    """The lines of the library that are in a stage's key, by file."""
    code, lines = library(), {}
    for place in code.closure(start(stage)):
        module = code.module(place.module) if code.is_own(place.module) else None
        for statement in module.statements(place.name) if module and place.name else ():
            first = min([statement.lineno, *(one.lineno for one in getattr(statement, "decorator_list", ()))])
            file = module.file.relative_to(LIBRARY).as_posix()
            lines.setdefault(file, set()).update(range(first, statement.end_lineno + 1))
    return lines


def start(stage):
    return Place("mtdpo_lib.experiment.steps", f"{stage.__name__}.make")


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_every_function_that_ran_is_in_the_key(ran, stage):
    missing = {
        (file, line)
        for file, line in ran[stage]
        if line not in covered(stage).get(file, ()) and not file.startswith("profiles/")
    }
    assert not missing


@pytest.fixture
def copy(tmp_path):
    """A copy of the library, and the keys of all stages in it."""
    shutil.copytree(LIBRARY, tmp_path / "mtdpo_lib", ignore=shutil.ignore_patterns("__pycache__"))

    def keys():
        code = CodeBase(tmp_path, "mtdpo_lib")
        return {stage: code.key(start(stage)) for stage in STAGES}

    return tmp_path / "mtdpo_lib", keys


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def first_line(node):
    return min([node.lineno, *(one.lineno for one in node.decorator_list)])


def test_a_changed_function_changes_the_keys_of_the_stages_that_run_it(ran, copy):
    folder, keys = copy
    before = keys()
    assert before == {stage: code_key(stage.make) for stage in STAGES}, (
        "where the library lies does not matter"
    )
    everything = sorted(set().union(*ran.values()))
    for file, line in everything[:: len(everything) // 8]:
        original = (folder / file).read_text()
        tree = ast.parse(original)
        for node in functions(tree):
            if first_line(node) == line:
                node.body.insert(0, ast.parse("_changed = 1").body[0])
        (folder / file).write_text(ast.unparse(tree))
        after = keys()
        ran_it = {stage for stage in STAGES if (file, line) in ran[stage]}
        if "_changed" in ast.unparse(tree):  # a lambda is no place for a statement
            assert {stage for stage in STAGES if before[stage] != after[stage]} >= ran_it, (file, line)
        (folder / file).write_text(original)
    assert keys() == before


def test_the_samples_of_pass_at_n_are_made_again_with_other_code(copy):
    folder, keys = copy
    before = keys()
    file = folder / "experiment" / "steps.py"
    file.write_text(file.read_text().replace("random.Random(asked)", "random.Random(-asked)"))
    after = keys()
    assert {stage for stage in STAGES if before[stage] != after[stage]} == {steps.ManySamples}


def test_comments_docstrings_and_places_of_modules_change_no_key(copy):
    folder, keys = copy
    before = keys()
    for file in folder.rglob("*.py"):
        tree = ast.parse(file.read_text())
        for node in functions(tree):
            if ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("Another docstring."))
        file.write_text("# A comment.\n" + ast.unparse(tree))
    (folder / "pairs.py").rename(folder / "rollout" / "winners.py")
    (folder / "rollout" / "engine.py").rename(folder / "rollout" / "loop.py")
    for file in folder.rglob("*.py"):
        text = file.read_text().replace("mtdpo_lib.pairs", "mtdpo_lib.rollout.winners")
        file.write_text(text.replace("mtdpo_lib.rollout.engine", "mtdpo_lib.rollout.loop"))
    assert keys() == before


def test_a_worker_of_the_sandbox_is_part_of_the_keys_of_those_who_use_it(copy):
    folder, keys = copy
    before = keys()
    file = folder / "sandbox" / "worker" / "guest.py"
    file.write_text(file.read_text() + "\nCHANGED = 1\n")
    assert {stage for stage, key in keys().items() if key == before[stage]} == {steps.Base}


def test_settings_out_of_the_key_are_guarded():
    profile = get_profile("smoke")
    for section, name in (
        ("rollout", "samples_current"),
        ("preference", "reference"),
        ("evaluation", "sampled"),
    ):
        with pytest.raises(AssertionError, match="not in its key"):
            getattr(guarded(getattr(profile, section)), name)
        assert dataclasses.replace(guarded(getattr(profile, section))) is not None
