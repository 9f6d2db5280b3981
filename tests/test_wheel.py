"""Installed as a wheel, without the repository: what works anywhere, and what says that it needs a checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

API = """
import mtdpo_lib
from mtdpo_lib.chat import Role
from mtdpo_lib.profiles import get_profile
from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.train import TrajectoryDPOTrainer, pairs_from_messages

with SandboxPool(get_profile("smoke").sandbox) as pool, pool.session() as session:
    print(mtdpo_lib.__file__, Role.TOOL.name, session.run("print(6 * 7)").text.strip())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with what the wheel holds, built without a network and far from the repository."""
    pytest.importorskip("hatchling", reason="pip install hatchling, which builds the wheel")
    place = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "mtdpo_lib", place / "mtdpo_lib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place / "dist")]
    subprocess.run(build, cwd=place, check=True, timeout=300)
    (wheel,) = (place / "dist").glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")
    return place / "site"


def python(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """A Python that sees the wheel's content before anything else, in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def tracked(folder: Path) -> set[str]:
    """Files of the library, without what running it leaves."""
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(folder).as_posix() for file in files}


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_library_and_nothing_else(installed):
    assert tracked(installed / "mtdpo_lib") == tracked(ROOT / "mtdpo_lib")
    assert [folder.name for folder in installed.iterdir() if not folder.name.endswith(".dist-info")] == [
        "mtdpo_lib"
    ]


@pytest.mark.slow
def test_the_api_and_the_commands_work_anywhere(installed, tmp_path):
    done = python(installed, tmp_path, "-c", API)
    assert done.stdout.split() == [str(installed / "mtdpo_lib" / "__init__.py"), "TOOL", "42"], done.stderr
    done = python(installed, tmp_path, "-m", "mtdpo_lib", "memory", "paper")
    assert done.returncode == 0 and "H100, 80 GB" in done.stdout, done.stderr
    done = python(
        installed, tmp_path, "-m", "mtdpo_lib", "study", "--profile", "smoke", "--seeds", "0", "--plan"
    )
    assert done.returncode == 0 and "To compute: " in done.stdout, done.stderr
    assert not (installed.parent / "runs").exists(), "nothing is written beside the installed library"


@pytest.mark.slow
@pytest.mark.parametrize("command", ["reproduce", "readme", "figures"])
def test_what_needs_the_repository_says_so_in_one_sentence(installed, tmp_path, command):
    done = python(installed, tmp_path, "-m", "mtdpo_lib", command)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert f"The command {command} needs a checkout of the repository" in done.stderr
    assert not list(tmp_path.iterdir())
