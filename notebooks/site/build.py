"""Build the site: ``python notebooks/site/build.py [OUT]``, by default ``dist/site``. Nothing is executed or fetched."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

import api
import contents
import jinja2
from sphinx.cmd.build import main as sphinx

SITE = Path(__file__).resolve().parent
ROOT = SITE.parents[1]


def assemble(source: Path, data: dict[str, Any] | None) -> None:
    """Write all pages into `source`: templates filled in, the lessons with their drawings, the reference of the library."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    names = contents.names() | {"rooms": api.rooms(), "data": data}
    for page in sorted(SITE.glob("*.md")):
        filled = environment.from_string(page.read_text(encoding="utf8")).render(names)
        (source / page.name).write_text(filled, encoding="utf8")
    for lesson in sorted(SITE.parent.glob("[0-9][0-9]_*.ipynb")):
        shutil.copy(lesson, source)
    shutil.copytree(SITE.parent / "drawings", source / "drawings")
    for room in api.rooms():
        (source / "api").mkdir(exist_ok=True)
        (source / "api" / f"{room}.rst").write_text(api.page(room), encoding="utf8")


def add_files(static: Path, data: dict[str, Any] | None) -> None:
    """Put beside the pages what they load: MathJax, the figures of the claims, the explorer's data as a script."""
    mathjax = metadata.distribution("django-static-mathjax").locate_file("mathjax/static/mathjax/es5")
    (static / "mathjax").mkdir()
    shutil.copy(Path(str(mathjax)) / "tex-chtml.js", static / "mathjax")
    fonts = "output/chtml/fonts/woff-v2"
    shutil.copytree(Path(str(mathjax)) / fonts, static / "mathjax" / fonts)
    for row in contents.judged():
        if row.measured:
            contents.drawn(row).save(static.parent / contents.figure_file(row))
    if data:  # a script and not JSON, so that the page also works from a file
        (static / "explorer-data.js").write_text(
            f"window.mtdpoExplorer = {json.dumps(data)};\n", encoding="utf8"
        )


def build(out: Path, data: dict[str, Any] | None) -> int:
    """Build the site into `out`, which is replaced; gives Sphinx's exit code."""
    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        source, doctrees = Path(folder, "source"), Path(folder, "doctrees")
        source.mkdir()
        assemble(source, data)
        code = sphinx(["-q", "-b", "html", "-c", str(SITE), "-d", str(doctrees), str(source), str(out)])
    if code == 0:
        add_files(out / "_static", data)
        (out / ".nojekyll").touch()  # for hosting that leaves out folders with an underscore
    return code


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, nargs="?", default=ROOT / "dist" / "site", help="default dist/site")
    parser.add_argument("--explorer", type=Path, help="what explorer.py wrote (default: what is kept)")
    options = parser.parse_args()
    code = build(options.out.resolve(), contents.explorer_data(options.explorer))
    if code == 0:
        print(f"Site: {options.out / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
