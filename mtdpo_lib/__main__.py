"""Command line: ``python -m mtdpo_lib --help``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mtdpo_lib.common.files import default_folder, need_checkout
from mtdpo_lib.common.progress import Progress, say
from mtdpo_lib.common.stages import CorruptStage, MissingProduct
from mtdpo_lib.experiment.arms import ARMS, parse_arms, parse_seeds
from mtdpo_lib.experiment.tune import SEEDS, tuning_arms
from mtdpo_lib.lessons import run as runner
from mtdpo_lib.profiles import BUDGETS, PROFILES, get_profile, override, setting_values
from mtdpo_lib.profiles.sections import TINY_BASES, allowed
from mtdpo_lib.sandbox import SandboxUnavailable

# What computes is imported by the command that needs it: torch takes seconds, and a wrong option should be told at once.

Action = Callable[[Namespace], int | None]
Option = tuple[tuple[str, ...], dict[str, Any]]
PARSER = argparse.ArgumentParser(prog="python -m mtdpo_lib", description="Command line of mtdpo")
COMMANDS = PARSER.add_subparsers(dest="command", required=True, metavar="COMMAND")


def option(*names: str, **how: Any) -> Option:
    """An option or argument, as `argparse` takes it."""
    return names, how


def command(what: str, *options: Option, more: str = "") -> Callable[[Action], Action]:
    """Make a function a command of the same name; `more` stands below its options in ``--help``."""

    def add(action: Action) -> Action:
        name, layout = action.__name__.replace("_", "-"), argparse.RawDescriptionHelpFormatter
        parser = COMMANDS.add_parser(name, help=what, epilog=more, formatter_class=layout)
        for names, how in options:
            parser.add_argument(*names, **how)
        parser.set_defaults(action=action)
        return action

    return add


def whole(text: str) -> int:
    """An option's whole number, zero or more."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"wants a whole number, zero or more; got {text}")
    return int(text)


def say_where(word: str, *paths: Path) -> None:
    """``Report: runs/cpu/report.html``, one line per path."""
    for path in paths:
        say(f"{word}: {runner.shown(path)}")


PROFILE = option("--profile", default="cpu", help=f"{', '.join(PROFILES)} (default cpu)")
SET = option("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
             help="change a setting; repeatable; names: the command `profiles`")  # fmt: skip
RUNS = option("runs", nargs="+", type=Path, metavar="RUN")
# What works on the notebooks and the kept records of the repository.
IN_CHECKOUT = ("reproduce", "readme", "keep", "figures", "refresh-notebooks", "gate", "base", "course")
JOBS = option("--jobs", type=whole, default=0, help="processes at one time (default: what fills the cores)")
RAY = option("--ray", default="", metavar="ADDRESS", help="on an existing Ray cluster: host:port, or auto")
KEEP = option("--keep", action="store_true", help="keep the records of what is finished in data/")
PLAN = option("--plan", action="store_true", help="only say what would be computed, and for how long")
BUDGET_NAMES = f"Budgets (--set budget=NAME): {', '.join(BUDGETS)}. See the command `profiles`."
ARM_NAMES = "Arms:\n" + "\n".join(f"  {arm.name:16} {arm.what}" for arm in ARMS.values())


@command(
    "run the notebooks in order and write the report",
    PROFILE,
    option("--seed", type=int, default=0, help="default 0"),
    option("--out", default="", help="run folder (default runs/PROFILE-seedN, and what is set)"),
    option("--only", metavar="NN", help="one notebook, by number or name"),
    SET,
    more=BUDGET_NAMES,
)
def reproduce(options: Namespace) -> int:
    return runner.reproduce(options.profile, options.seed, options.out, options.only, options.settings)


@command("report over several seeds of one profile", RUNS, option("--out", required=True, type=Path))
def combine(options: Namespace) -> None:
    from mtdpo_lib.results import report

    say_where("Report", report.combine(options.runs, options.out))


@command(
    "arms of the method over seeds, with intervals",
    PROFILE,
    option("--seeds", default="0-2", help="like 0-4 or 0,3 (default 0-2)"),
    option("--arms", default="", help="names, separated by commas (default all)"),
    option("--arm", dest="new", action="append", default=[], metavar="NAME:KEY=VALUE[,KEY=VALUE...]",
            help="an arm of your own: M-DPO with these settings, compared with mdpo; repeatable"),
    option("--out", type=Path, help="folder (default runs/study-PROFILE, and what is set)"),
    JOBS,
    RAY,
    PLAN,
    KEEP,
    SET,
    more=f"{ARM_NAMES}\n\n{BUDGET_NAMES}",
)  # fmt: skip
def study(options: Namespace) -> int:
    from mtdpo_lib.results import study_metrics

    return compute(options, parse_arms(options.arms, options.new), study_metrics)


@command(
    "sweep equally many settings for each method, on development problems",
    PROFILE,
    option("--methods", default="mdpo,mkto,dpo,kto,raft", help="separated by commas (default all five)"),
    option("--seeds", default=SEEDS, help=f"that no study uses (default {SEEDS})"),
    option("--out", type=Path, help="folder (default runs/tune-PROFILE)"),
    JOBS,
    RAY,
    PLAN,
    KEEP,
    SET,
    more="What is tried: the settings tune.*; see the command `profiles`.",
)
def tune(options: Namespace) -> int:
    from mtdpo_lib.results import tuning

    wanted = get_profile(options.profile, options.settings).tune
    code = compute(options, tuning_arms(options.methods, wanted), tuning, tested=False)
    if code or options.keep or wanted.last_iteration == 1:
        return code
    if options.plan:
        say(f"Then the best {wanted.finalists} of each method, through iteration {wanted.last_iteration}.")
        return code
    return compute(options, tuning.finalists(folder(options), wanted), tuning, tested=False)


def folder(options: Namespace) -> Path:
    """Where a study or a tuning keeps its stages and records."""
    own = default_folder(f"{options.command}-{options.profile}", " ".join(options.settings))
    return (options.out or own).expanduser().resolve()


def compute(options: Namespace, arms: Sequence[str], results: Any, tested: bool = True) -> int:
    """Plan, compute or keep arms over seeds; `results` is the module that summarises and keeps their records."""
    from mtdpo_lib.experiment import parallel
    from mtdpo_lib.experiment.study import Study
    from mtdpo_lib.results import study_metrics

    out = folder(options)
    if options.keep:
        need_checkout(f"The command {options.command} --keep")
        say_where("Kept", results.keep(out))
        return runner.OK
    profile, seeds = get_profile(options.profile, options.settings), parse_seeds(options.seeds)
    ray = options.ray
    jobs = len(seeds) if ray else options.jobs or parallel.default_jobs(profile)
    known = study_metrics.kept_seconds(profile.name)
    wanted = Study(options.profile, options.settings, seeds, arms, out, known, tested)
    wanted.check()
    names = ", ".join(arm.partition(":")[0] for arm in arms)
    say(f"{len(arms)} arms ({names}), seeds {', '.join(map(str, seeds))}.")
    say(wanted.plan().sentence(jobs))
    if options.plan:
        return runner.OK
    succeeded = wanted.run(jobs, ray, say)
    say_where("Results", results.summarise(out))
    return runner.OK if succeeded else 1


@command(
    "a run as one file, for others to start from",
    option("run", type=Path, metavar="RUN"),
    option("--out", type=Path, metavar="FILE", help="default RUN's name with .tar.gz"),
)
def pack_run(options: Namespace) -> None:
    from mtdpo_lib.lessons import share

    say_where(
        "Packed", share.pack_run(options.run, options.out or Path(f"{options.run.resolve().name}.tar.gz"))
    )


@command(
    "unpack such a file, so that notebooks find what it holds",
    option("source", metavar="FILE_OR_URL"),
    option("--out", type=Path, help="a new run folder (default runs/PROFILE-seedN, and what was set)"),
)
def fetch_run(options: Namespace) -> None:
    from mtdpo_lib.lessons import share

    say_where("Run", share.fetch_run(options.source, options.out))


@command(
    "the paired difference of two runs: folders of `reproduce`, or a study's arms/NAME-seedN.json",
    option("one", type=Path, metavar="RUN_A"),
    option("other", type=Path, metavar="RUN_B"),
)
def compare(options: Namespace) -> None:
    from mtdpo_lib.results.compare import compare as differences

    for line in differences(options.one, options.other):
        say(line)


@command("print the settings of a profile, and the budgets", option("name", nargs="?", default="cpu"))
def profiles(options: Namespace) -> None:
    profile = get_profile(options.name)
    print(f"Profile {profile.name} may claim: {profile.claims}")
    for setting, value in setting_values(profile).items():
        print(f"  {setting} = {value!r}")
    for budget, changes in BUDGETS.items():
        changed = ", ".join(f"{key}={value}" for key, value in changes.items())
        print(f"--set budget={budget} changes: {changed}")


@command(
    "what fits on which GPU, and for how long, by arithmetic",
    option("name", nargs="?", default="paper", metavar="PROFILE"),
    option("--gpus", type=whole, default=1, help="that share the work, on each machine (default 1)"),
    option("--machines", type=whole, default=1, help="with as many GPUs each (default 1)"),
    SET,
)
def memory(options: Namespace) -> None:
    from mtdpo_lib.lessons import gpu_memory as costs
    from mtdpo_lib.results import markdown_table

    profile = get_profile(options.name, options.settings)
    base, tokens = profile.model.base, profile.pairs.max_tokens
    here = max(options.gpus, 1)
    gpus = here * max(options.machines, 1)
    parts = costs.training_bytes(profile, gpus=here).items()
    needs = ", ".join(f"{part} {size / costs.GIB:.2f}" for part, size in parts)
    print(f"{base}: one pair of {tokens} tokens per side needs, in GiB on each card: {needs}")
    if gpus > 1:
        print(f"Hours on {gpus} such cards, each of which keeps {costs.SHARING:.0%} of its pace (assumed):")
    print(markdown_table(*costs.plan(profile, gpus=here, machines=gpus // here)))
    reached, length = f"{costs.EFFICIENCY:.0%}", f"{costs.TYPICAL_LENGTH:.0%}"
    print(f"Estimates: a card reaches {reached} of its peak, a trajectory {length} of its limit.")
    if profile.name.startswith("paper"):
        print(costs.PAPERS_MACHINE)


# A user's own pairs are learnt from with the settings of `small`, but for these.
OWN = "model.quantization=none pairs.max_tokens=2048 preference.batch_size=8 preference.step=fast preference.checkpoints=1"
OWN_PROFILE = get_profile("small", OWN)


def own(name: str) -> Option:
    """An option of the same name for a setting: ``--learning-rate`` for ``preference.learning_rate``."""
    _, what = allowed(name)
    flag = "--" + name.rpartition(".")[2].replace("_", "-")
    return option(
        flag, dest=name, metavar="VALUE", help=f"{what} (default {setting_values(OWN_PROFILE)[name]})"
    )


OWN_PAIRS = (
    option("pairs", type=Path, metavar="PAIRS.jsonl", help='one {"chosen": messages, "rejected": messages} on each line'),
    option("--model", default="", metavar="FOLDER", help="of a chat model, or its name on the hub"),
    option("--template", type=Path, metavar="FILE", help="a chat template instead of the model's, or without a model"),
    option("--allow-rewriting", action="store_true", help="also take turns that the template changes"),
    own("preference.method"), own("pairs.max_tokens"),
)  # fmt: skip


def read_own(options: Namespace) -> tuple[Any, Any]:
    """The pairs of a file, and the profile that the options make."""
    from mtdpo_lib.chat import MessageFormat
    from mtdpo_lib.lessons import own_data

    given = vars(options).items()
    profile = override(
        OWN_PROFILE, {name: value for name, value in given if "." in name and value is not None}
    )
    tokenizer = own_data.chat_tokenizer(options.model, options.template)
    form = MessageFormat(tokenizer, allow_rewriting=options.allow_rewriting)
    limited = options.model or vars(options)["pairs.max_tokens"]  # a model's limit says nothing of bytes
    most = profile.pairs.max_tokens if limited else None
    found = own_data.read_pairs(options.pairs, form, profile.preference.method, most)
    counts = {"pairs": found.kept, f"longer than {most} tokens": found.longer, "refused": found.refused}
    say(", ".join(f"{len(lines)} {what}" for what, lines in counts.items() if lines or what == "pairs"))
    return found, profile


@command(
    "see your own pairs: who wrote each token, and which the loss sees (exit code 2 if a line is refused)",
    *OWN_PAIRS,
    option("--out", type=Path, default=Path("masks"), help="NAME of NAME.html and NAME.txt (default masks)"),
    option(
        "--show", type=whole, default=100, metavar="N", help="pairs in full (default 100; totals: of all)"
    ),
)
def masks(options: Namespace) -> int:
    from mtdpo_lib.lessons import own_data

    found, profile = read_own(options)
    unit = "the model's own" if options.model else "bytes, for want of a model"
    files = own_data.write_masks(
        found, options.out, options.show, file=options.pairs, method=profile.preference.method, unit=unit,
        template=options.template or options.model,
    )  # fmt: skip
    say_where("Masks", *files)
    return runner.BAD_INPUT if found.refused else runner.OK


@command(
    "learn from your own pairs: an adapter for a chat model",
    *OWN_PAIRS,
    option("--out", type=Path, required=True, metavar="ADAPTER", help="a new folder"),
    *map(own, ("preference.eta", "preference.learning_rate", "preference.epochs", "preference.batch_size")),
    *map(own, ("preference.rows_at_once", "model.quantization", "model.dtype")),
    option("--seed", type=whole, default=0, help="default 0"),
)
def train(options: Namespace) -> None:
    from mtdpo_lib.common.files import UnusableFolder

    if options.out.exists():
        raise UnusableFolder(f"{options.out} is there already: give --out a new folder, or remove it.")
    if not options.model:
        raise ValueError("Give --model the folder of the chat model to train.")
    from mtdpo_lib.lessons import own_data

    found, profile = read_own(options)
    last = own_data.train(found, options.pairs, options.model, options.out, profile, options.seed)
    say(", ".join(f"{name} {value:.4g}" for name, value in last.items()))
    say_where("Adapter", options.out)


@command(
    "how many of GSM8K's solutions become executed demonstrations; a sample",
    option("folder", nargs="?", default="", help="with train.jsonl (default MTDPO_GSM8K_DIR, then the hub)"),
    option("--sample", type=whole, default=20, help="demonstrations to print (default 20)"),
)
def gsm8k(options: Namespace) -> None:
    import random

    from mtdpo_lib.problems.gsm8k import gsm8k_demonstrations, read_records, sources, training_problems
    from mtdpo_lib.sandbox import SandboxPool

    records = read_records(options.folder)
    if notice := records.notice():
        say(notice)
    problems = training_problems(records)
    with SandboxPool(get_profile("small").sandbox) as pool:
        kept, counts = gsm8k_demonstrations(problems, pool.session, progress=Progress("GSM8K"))
    for demonstration in random.Random(0).sample(kept, min(options.sample, len(kept))):
        print(f"\n=== {demonstration.problem.id}, gold {demonstration.problem.answer}")
        for message in demonstration.messages:
            print(f"{message['role']:>9} | " + message["content"].replace("\n", "\n          | "))
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    shown = len({demonstration.problem.id for demonstration in kept})
    asked = len({problem.id for problem in problems})
    share = f"{shown:,} of {asked:,} solutions ({shown / max(asked, 1):.1%})"
    print(f"\n{share}: {reasons}. {sources(options.folder)}")


@command(
    "write the kept results into the README",
    option("--check", action="store_true", help="only say whether they are there; exit code 1 if not"),
)
def readme(options: Namespace) -> int:
    from mtdpo_lib.results.readme import update_readme

    if update_readme(options.check) or not options.check:
        return runner.OK
    say("README.md does not show the kept records: run python -m mtdpo_lib readme.")
    return 1


@command(
    "what the SFT policy of a world is like, against what the claims need of it",
    PROFILE,
    option("--seeds", default="900-909", help="which no study uses (default 900-909)"),
    option("--out", type=Path, help="folder of the stages (default runs/gate-PROFILE)"),
    SET,
)
def gate(options: Namespace) -> int:
    from mtdpo_lib.common.files import write_json
    from mtdpo_lib.experiment import gate

    out = options.out or default_folder(f"gate-{options.profile}", " ".join(options.settings))
    measured = gate.measure(get_profile(options.profile, options.settings), parse_seeds(options.seeds), out)
    for line in gate.gate():
        verdict = "holds" if measured["passes"][line.name] else "FAILS"
        say(f"{verdict}: {line.name} = {measured['value'][line.name]} {line.unit} ({line.what})")
    say_where("Record", write_json(out / "gate.json", measured))
    return runner.OK if all(measured["passes"].values()) else 1


@command(
    "pretrain the tiny base again, or one of another size (an hour or two)",
    option(
        "name",
        nargs="?",
        default="tiny-base",
        choices=TINY_BASES,
        help=f"{', '.join(TINY_BASES)} (default the first)",
    ),
    option("--out", type=Path, help="folder (default in data/base)"),
)
def base(options: Namespace) -> None:
    from mtdpo_lib.models.bases import location
    from mtdpo_lib.train.pretrain import make_base, recipe_of

    out = options.out or Path(location(options.name))
    make_base(out, recipe_of(options.name))
    say_where("Base", out)


@command("keep the records of finished runs under data/reference_runs", RUNS)
def keep(options: Namespace) -> None:
    from mtdpo_lib.lessons import publish

    say_where("Kept", publish.keep(options.runs))


@command(
    "redraw the figures of all kept records",
    option("--out", type=Path, default=Path("runs/figures"), help="folder (default runs/figures)"),
)
def figures(options: Namespace) -> None:
    from mtdpo_lib.lessons import publish

    say_where("Drawn", *publish.draw_figures(options.out))


@command("put a run's outputs into the committed notebooks", option("run", type=Path, metavar="RUN"))
def refresh_notebooks(options: Namespace) -> None:
    from mtdpo_lib.lessons import publish

    say_where("Refreshed", *publish.refresh_notebooks(options.run))


@command(
    "the exercises as a course: students' notebooks, autograders, the instructor's pack",
    option(
        "--variant", default="2026a", help="other numbers, seeds and hidden cases for each (default 2026a)"
    ),
    option("--out", type=Path, default=Path("dist/course"), help="folder (default dist/course)"),
)
def course(options: Namespace) -> None:
    from mtdpo_lib.lessons.course import build

    say_where("Built", *build(options.variant, options.out))


@command(
    "grade submitted notebooks in the sandbox: a table, and a page of feedback for each",
    option("folder", type=Path, metavar="FOLDER", help="of notebooks, each with its exercise in its name"),
    option(
        "--course", type=Path, default=Path("dist/course"), help="what `course` built (default dist/course)"
    ),
    option("--out", type=Path, help="folder of table and pages (default FOLDER-grades)"),
)
def grade(options: Namespace) -> None:
    from mtdpo_lib.lessons.grade import grade as grade_all

    folder = options.folder.resolve()
    out = options.out or folder.with_name(f"{folder.name}-grades")
    for one in grade_all(folder, options.course / "autograder", out):
        say(f"{one.submission}: {one.points:g} of {one.possible:g} points. {' '.join(one.problems)}".rstrip())
    say_where("Grades", out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, and turn what a user can get wrong into one sentence and exit code 2."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # as errors are: a path may hold letters that the locale lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        try:
            options = PARSER.parse_args(arguments)
            if options.command in IN_CHECKOUT:
                need_checkout(f"The command {options.command}")
            return options.action(options) or runner.OK
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `profiles | head`: nobody reads on, also not what is still to be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return runner.OK
    except (ValueError, MissingProduct, CorruptStage, OSError, SandboxUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return runner.BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped. What is finished is kept: the same command goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
