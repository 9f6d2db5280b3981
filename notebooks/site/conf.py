"""Settings of Sphinx. `build.py` puts the pages together and calls it; nothing is executed, nothing is fetched."""

import json
import os
import sys
from pathlib import Path
from typing import Any

SITE = Path(__file__).resolve().parent
sys.path.insert(0, str(SITE))

import contents  # noqa: E402

# Where the repository lives, which launch buttons need; without it there are none.
REPOSITORY = os.environ.get("MTDPO_REPOSITORY") or contents.repository()
BRANCH = "main"

project, author, release = "mtdpo", "The mtdpo developers", contents.project()["version"]
project_copyright = "%Y, The mtdpo developers, Apache-2.0"
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath", "amsmath", "deflist", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, Any] = {}  # two scripts of another host otherwise
nb_merge_streams = True
nb_render_markdown_format = "myst"  # plain CommonMark, the default, has no tables
default_role = "py:obj"  # names in docstrings are links where they are documented
toc_object_entries_show_parents = "hide"
math_number_all = False
mathjax_path = "mathjax/tex-chtml.js"  # copied there by `build.py`
mathjax3_config = {"options": {"enableMenu": False}, "tex": {"tags": "none"}}

html_theme = "sphinx_book_theme"
html_title = "mtdpo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_favicon = "static/icon.svg"
html_copy_source = True  # what the download button gives: the notebook as it is committed
html_show_sourcelink = False
html_permalinks_icon = "#"
html_context = {"default_mode": "auto"}  # without it the theme complains on the console
html_theme_options: dict[str, Any] = {
    "path_to_docs": "notebooks",
    "repository_branch": BRANCH,
    "use_download_button": True,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "show_toc_level": 2,
    "show_navbar_depth": 1,
}
if REPOSITORY.startswith("https://github.com/"):  # where Colab and Binder read from
    html_theme_options |= {
        "repository_url": REPOSITORY,
        "use_repository_button": True,
        "launch_buttons": {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        },
    }


def fold(app: Any, docname: str, source: list[str]) -> None:
    """Fold some cells of a lesson on its page; the committed notebook stays as it is."""
    if docname[:2].isdigit():
        source[0] = json.dumps(contents.folded(json.loads(source[0])))


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fold)
