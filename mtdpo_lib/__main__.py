"""Command line: ``python -m mtdpo_lib --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtdpo_lib.common.stages import CorruptStage, MissingProduct, UnusableFolder
from mtdpo_lib.lessons import gpu_memory
from mtdpo_lib.lessons import run as runner
from mtdpo_lib.profiles.overrides import get_profile, setting_names
from mtdpo_lib.profiles.presets import PROFILES
from mtdpo_lib.profiles.sections import Profile
from mtdpo_lib.results import study_metrics


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    top = argparse.ArgumentParser(
        prog="python -m mtdpo_lib", description=__doc__.partition(":")[0] + " of mtdpo"
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    reproduce = commands.add_parser("reproduce", help="run the notebooks in order and write the report")
    reproduce.add_argument("--profile", default="cpu", help=f"{', '.join(PROFILES)} (default cpu)")
    reproduce.add_argument("--seed", type=int, default=0, help="default 0")
    reproduce.add_argument("--out", default="", help="run folder (default runs/PROFILE-seedN)")
    reproduce.add_argument("--only", metavar="NN", help="one notebook, by number or name")
    reproduce.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                           help="change a setting; repeatable; names: the command `profiles`")  # fmt: skip

    combine = commands.add_parser("combine", help="report over several seeds of one profile")
    combine.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    combine.add_argument("--out", required=True, type=Path)

    study = commands.add_parser("study", help="arms of the method over seeds, with intervals")
    study.add_argument("--profile", default="cpu", help=f"{', '.join(PROFILES)} (default cpu)")
    study.add_argument("--seeds", default="0-2", help="like 0-4 or 0,3 (default 0-2)")
    study.add_argument("--arms", default="", help="names, separated by commas (default all)")
    study.add_argument("--out", type=Path, help="folder (default runs/study-PROFILE)")
    study.add_argument(
        "--jobs", type=int, default=0, help="processes at one time (default: what fills the cores)"
    )
    study.add_argument("--ray", metavar="ADDRESS", help="on an existing Ray cluster: host:port, or auto")
    study.add_argument(
        "--plan", action="store_true", help="only say what would be computed, and for how long"
    )
    study.add_argument("--keep", action="store_true", help="keep the records of a finished study in data/")
    study.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE",
                       help="change a setting in all arms; repeatable")  # fmt: skip

    profiles = commands.add_parser("profiles", help="print the settings of a profile")
    profiles.add_argument("name", nargs="?", default="cpu")

    memory = commands.add_parser("memory", help="what fits on which GPU, and for how long, by arithmetic")
    memory.add_argument("name", nargs="?", default="paper", metavar="PROFILE")
    memory.add_argument("--set", dest="settings", action="append", default=[], metavar="KEY=VALUE")

    gsm8k = commands.add_parser(
        "gsm8k", help="how many of GSM8K's solutions become executed demonstrations; a sample"
    )
    gsm8k.add_argument(
        "folder", nargs="?", default="", help="with train.jsonl (default MTDPO_GSM8K_DIR, then the hub)"
    )
    gsm8k.add_argument("--sample", type=int, default=20, help="demonstrations to print (default 20)")

    readme = commands.add_parser("readme", help="write the kept results into the README")
    readme.add_argument(
        "--check", action="store_true", help="only say whether they are there; exit code 1 if not"
    )

    keep = commands.add_parser("keep", help="keep the records of finished runs under data/reference_runs")
    keep.add_argument("runs", nargs="+", type=Path, metavar="RUN")

    figures = commands.add_parser("figures", help="redraw the figures of all kept records")
    figures.add_argument(
        "--out", type=Path, default=Path("runs/figures"), help="folder (default runs/figures)"
    )

    refresh = commands.add_parser(
        "refresh-notebooks", help="put a run's outputs into the committed notebooks"
    )
    refresh.add_argument("run", type=Path, metavar="RUN")
    return top


def dispatch(options: argparse.Namespace) -> int:
    """Do what was asked; the result is the exit code."""
    if options.command == "reproduce":
        return runner.reproduce(options.profile, options.seed, options.out, options.only, options.settings)
    if options.command == "profiles":
        return show_profile(options.name)

    if options.command == "memory":
        return show_memory(get_profile(options.name, options.settings))
    if options.command == "gsm8k":
        return show_gsm8k(options.folder, options.sample)
    if options.command == "study":
        return run_study(options)

    from mtdpo_lib.lessons import publish
    from mtdpo_lib.results import report

    if options.command == "combine":
        runner.say(f"Report: {runner.shown(report.combine(options.runs, options.out))}")
    elif options.command == "keep":
        runner.say(f"Kept: {runner.shown(publish.keep(options.runs))}")
    elif options.command == "figures":
        for folder in publish.draw_figures(options.out):
            runner.say(f"Drawn: {runner.shown(folder)}")
    elif options.command == "refresh-notebooks":
        for file in publish.refresh_notebooks(options.run):
            runner.say(f"Refreshed: {runner.shown(file)}")
    elif not publish.update_readme(options.check) and options.check:
        runner.say("README.md does not show the kept records: run python -m mtdpo_lib readme.")
        return 1
    return 0


def run_study(options: argparse.Namespace) -> int:
    """Check the input, then plan and compute."""
    from mtdpo_lib.experiment import arms, parallel
    from mtdpo_lib.experiment.study import Study

    profile = get_profile(options.profile, options.settings)
    seeds, wanted = arms.parse_seeds(options.seeds), [arm.name for arm in arms.parse_arms(options.arms)]
    out = (options.out or runner.ROOT / "runs" / f"study-{options.profile}").expanduser().resolve()
    if options.keep:
        runner.say(f"Kept: {runner.shown(study_metrics.keep(out))}")
        return runner.OK
    jobs = len(seeds) if options.ray else options.jobs or parallel.default_jobs(profile)
    known = study_metrics.kept_seconds(profile.name)
    study = Study(options.profile, options.settings, seeds, wanted, out, known)
    study.check()
    runner.say(f"{len(wanted)} arms ({', '.join(wanted)}), seeds {', '.join(map(str, seeds))}.")
    runner.say(study.plan().sentence(jobs))
    if options.plan:
        return runner.OK
    succeeded = study.run(jobs, options.ray or "", runner.say)
    runner.say(f"Results: {study_metrics.summarise(out)}")
    return runner.OK if succeeded else 1


def show_profile(name: str) -> int:
    """Print every setting that ``--set`` accepts, with its value."""
    profile = get_profile(name)
    print(f"Profile {profile.name} may claim: {profile.claims}")
    for setting in setting_names(profile):
        section, _, inner = setting.rpartition(".")
        print(f"  {setting} = {getattr(getattr(profile, section) if section else profile, inner)!r}")
    return 0


def show_memory(profile: Profile) -> int:
    """Print a step's memory by part, and what fits on some cards."""
    from mtdpo_lib.results.report import markdown_table

    needs = gpu_memory.training_bytes(profile)
    print(f"{profile.model.base}: one pair of {profile.pairs.max_tokens} tokens a side needs, in GiB: "
          + ", ".join(f"{name} {value / gpu_memory.GIB:.2f}" for name, value in needs.items()))  # fmt: skip
    print(markdown_table(*gpu_memory.plan(profile)))
    reached, length = f"{gpu_memory.EFFICIENCY:.0%}", f"{gpu_memory.TYPICAL_LENGTH:.0%}"
    print(f"Estimates: a card reaches {reached} of its peak, a trajectory {length} of its limit.")
    return 0


def show_gsm8k(folder: str, sample: int) -> int:
    """Make demonstrations of all training solutions, each run in the sandbox; print the share kept and some of them."""
    import random

    from mtdpo_lib.common.progress import Progress
    from mtdpo_lib.problems.gsm8k import gsm8k_demonstrations, sources, training_problems
    from mtdpo_lib.sandbox import SandboxPool

    problems = training_problems(folder)
    with SandboxPool(get_profile("small").sandbox) as pool:
        kept, counts = gsm8k_demonstrations(problems, pool.session, progress=Progress("GSM8K"))
    for one in random.Random(0).sample(kept, min(sample, len(kept))):
        print(f"\n=== {one.problem.id}, gold {one.problem.answer}")
        for message in one.messages:
            print(f"{message['role']:>9} | " + message["content"].replace("\n", "\n          | "))
    told = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
    print(
        f"\n{len(kept):,} of {len(problems):,} solutions ({len(kept) / len(problems):.1%}): {told}. {sources(folder)}"
    )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, do, and turn what a user can get wrong into one sentence and exit code 2."""
    options = parser().parse_args(arguments)
    try:
        return dispatch(options)
    except (ValueError, MissingProduct, CorruptStage, UnusableFolder) as error:
        print(f"error: {error}", file=sys.stderr)
        return runner.BAD_INPUT
    except KeyboardInterrupt:
        print("Stopped. What is finished is kept: the same command goes on from there.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
