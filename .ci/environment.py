"""Make .venv from requirements.txt, with whatever Python runs this file (3.8 or newer). No dependencies.

Usage: python3 environment.py [VENV [PIP ARGUMENT ...]]

It looks for an interpreter that really runs and is new enough (a pyenv shim may exist and not run), lets uv install
because uv is fast, and falls back to plain pip. Where pip is told to use other indexes, uv is told the same.
Further arguments are installed into an environment made earlier, e.g. ``environment.py .venv --no-deps PACKAGE``.
"""

import ast
import glob
import os
import shutil
import subprocess
import sys

WANTED = (3, 12)  # the version the requirements were tested with; newer ones serve too
NEWEST = (3, 14)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def version(python):
    """The (major, minor) version of an interpreter that runs and can make environments, else None."""
    probe = "import sys, venv; print(sys.version_info[0], sys.version_info[1])"
    try:
        answer = subprocess.run([python, "-c", probe], capture_output=True, text=True, timeout=60)
        return tuple(map(int, answer.stdout.split())) if answer.returncode == 0 else None
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def find_python():
    """A working interpreter from 3.12 to 3.14, the oldest of them, or None."""
    names = ["python%d.%d" % (3, minor) for minor in range(WANTED[1], NEWEST[1] + 1)] + ["python3", "python"]
    folders = os.environ.get("PATH", "").split(os.pathsep)
    places = [os.path.join(folder, name) for name in names for folder in folders]
    home = os.path.expanduser("~")
    pyenv = os.environ.get("PYENV_ROOT", os.path.join(home, ".pyenv"))
    places += sorted(glob.glob(os.path.join(pyenv, "versions", "*", "bin", "python")))
    condas = [os.path.join(home, name) for name in ("miniconda3", "anaconda3", "miniforge3")]
    for conda in [os.environ.get("CONDA_PREFIX", ""), *condas]:
        if conda:
            places.append(os.path.join(conda, "bin", "python"))
            places += sorted(glob.glob(os.path.join(conda, "envs", "*", "bin", "python")))
    found = {}
    for place in places:
        if os.access(place, os.X_OK):
            number = version(place)
            if number == WANTED:
                return place
            if number and WANTED < number <= NEWEST:
                found.setdefault(number, place)
    return found[min(found)] if found else None


def find_uv(python):
    """uv from PATH, or from a small environment of its own in .uv, or None."""
    if shutil.which("uv"):
        return shutil.which("uv")
    uv = os.path.join(ROOT, ".uv", "bin", "uv")
    for maker in (sys.executable, python):
        if maker and not os.access(uv, os.X_OK):
            made = subprocess.run(
                [maker, "-m", "venv", "--clear", os.path.join(ROOT, ".uv")], stdout=subprocess.DEVNULL
            )
            if made.returncode == 0:
                subprocess.run(
                    [os.path.join(ROOT, ".uv", "bin", "python"), "-m", "pip", "install", "--quiet", "uv"]
                )
    return uv if os.access(uv, os.X_OK) else None


def uv_settings():
    """Environment for uv in which pip's own settings (files and PIP_ variables) hold, unless uv has its own."""
    pip = {}
    listing = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    for line in sorted(listing.stdout.splitlines(), key=lambda line: line.startswith(":env:")):
        name, equals, value = line.partition("=")
        if equals:
            pip[name.split(".", 1)[-1]] = str(ast.literal_eval(value))
    settings = dict(os.environ)
    for setting, variable, joint in (
        ("index-url", "UV_DEFAULT_INDEX", " "),
        ("extra-index-url", "UV_INDEX", " "),
        ("find-links", "UV_FIND_LINKS", ","),
        ("no-index", "UV_NO_INDEX", " "),
        ("trusted-host", "UV_INSECURE_HOST", " "),
        ("cert", "SSL_CERT_FILE", " "),
    ):
        if setting in pip:
            settings.setdefault(variable, joint.join(pip[setting].split()))
    settings.setdefault(
        "UV_INDEX_STRATEGY", "unsafe-best-match"
    )  # the best version of any index, as pip does
    return settings


def main():
    venv = os.path.join(ROOT, sys.argv[1] if len(sys.argv) > 1 else ".venv")
    arguments = sys.argv[2:] or ["-r", os.path.join(ROOT, "requirements.txt")]
    inside = os.path.join(venv, "bin", "python")
    ready = version(inside)
    python = inside if ready and ready >= WANTED else find_python()
    uv = find_uv(python)
    if uv is None and python is None:
        sys.exit(
            "Neither a Python of 3.12 to 3.14 nor uv could be found or fetched: install one, then run make again."
        )
    settings = uv_settings() if uv else None
    if python != inside:
        print(
            "Making %s with %s" % (os.path.relpath(venv, ROOT), python or "a Python 3.12 that uv fetches"),
            flush=True,
        )
        if uv:
            choice = ["--python", python] if python else ["--managed-python", "--python", "3.12"]
            subprocess.run(
                [uv, "venv", "--quiet", "--seed", "--clear", *choice, venv], check=True, env=settings
            )
        else:
            subprocess.run([python, "-m", "venv", "--clear", venv], check=True)
    names = [
        os.path.relpath(argument, ROOT) if os.path.isabs(argument) else argument for argument in arguments
    ]
    print("Installing %s (a minute or two the first time)" % " ".join(names), flush=True)
    if uv:
        # Compiled now, not at every import: nothing else does where PYTHONDONTWRITEBYTECODE is set (12 s against 27 s).
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", inside, *arguments]
        if subprocess.run(install, cwd=ROOT, env=settings).returncode == 0:
            return
    subprocess.run([inside, "-m", "pip", "install", "--quiet", *arguments], check=True, cwd=ROOT)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit("This step of making the environment failed: %s" % " ".join(map(str, error.cmd)))
