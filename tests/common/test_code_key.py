"""Keys of code: another one for every change that a function can come to, the same for all that changes nothing."""

import textwrap

import pytest

from mtdpo_lib.common.code_key import CodeBase, Place, code_key

PACKAGE = {
    "__init__.py": "",
    "work.py": """
        from __future__ import annotations
        from typing import TYPE_CHECKING
        import math
        from small import tools as kit
        from small.shop import sell as trade, Box
        from small.profiles import SETTING
        if TYPE_CHECKING:
            from small.typed import Seen

        LIMIT = 3

        class Stage:
            @staticmethod
            def make(folder, seen: Seen):
                from small.late import late
                return late(), kit.hammer(LIMIT), trade(Box(SETTING)), math.pi, seen.look()

            def reader(self):
                return "read"

        def unrelated():
            return 1
        """,
    "tools.py": "def hammer(n): return n + 1\ndef saw(n): return n + 2",
    "shop/__init__.py": "from small.shop.counter import sell\nfrom small.shop.boxes import Box",
    "shop/counter.py": "PRICE = 5\ndef sell(thing): return PRICE",
    "shop/boxes.py": """
        class Lid:
            size = 1
        class Box(Lid):
            def __init__(self, what): self.what = what
            def shake(self): return 1
        KINDS = {}
        KINDS.update(box=Box)
        """,
    "typed.py": "class Seen:\n    def look(self): return 1",
    "late.py": """
        from pathlib import Path
        try:
            import fast
        except ImportError:
            fast = None
        PROGRAMS = Path(__file__).with_name("programs")
        def late():
            return PROGRAMS, fast, [hidden() for _ in range(3)]
        def hidden():
            return deeper
        def deeper():
            return 1
        if __name__ == "__main__":
            late()
        """,
    "programs/run.py": '"""Doc."""\nprint(1)  # comment',
    "programs/data.txt": "1 2 3",
    "profiles.py": "SETTING = 1",
}
START = Place("small.work", "Stage.make")


@pytest.fixture
def package(tmp_path):
    """Writes the package with one replacement (file, old, new) and gives the key."""

    def key(file="work.py", old="", new="", files=PACKAGE, start=START):
        assert old in files[file]
        for name, code in files.items():
            path = tmp_path / "small" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            code = code.replace(old, new, 1) if name == file else code
            path.write_text(textwrap.dedent(code))
        return CodeBase(tmp_path, "small").key(start)

    return key


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("work.py", "math.pi", "math.e"),
        ("work.py", "LIMIT = 3", "LIMIT = 4"),
        ("work.py", "import math", "import cmath as math"),
        ("tools.py", "n + 1", "n - 1"),
        ("shop/__init__.py", "from small.shop.counter import sell", "def sell(thing): return 5"),
        ("shop/counter.py", "PRICE = 5", "PRICE = 6"),
        ("shop/boxes.py", "return 1", "return 2"),
        ("shop/boxes.py", "size = 1", "size = 2"),
        ("shop/boxes.py", "KINDS.update(box=Box)", "KINDS.update(crate=Box)"),
        ("typed.py", "return 1", "return 2"),
        ("late.py", "range(3)", "range(4)"),
        ("late.py", "return 1", "return 2"),
        ("late.py", "fast = None", "fast = 0"),
        ("programs/run.py", "print(1)", "print(2)"),
        ("programs/data.txt", "3", "4"),
    ],
)
def test_what_can_run_changes_the_key(package, file, old, new):
    assert package() != package(file, old, new)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        (
            "work.py",
            "def make(folder, seen: Seen):",
            'def make(folder, seen: Seen):\n                "Docstring."',
        ),
        ("work.py", "LIMIT = 3", "LIMIT = 3  # a comment"),
        ("work.py", 'return "read"', 'return "other"'),
        ("work.py", "def unrelated():\n            return 1", "def unrelated():\n            return 2"),
        ("work.py", "import math\n", "import math, cmath\n"),
        ("work.py", "sell as trade, Box", "Box, sell as trade"),
        ("tools.py", "n + 2", "n + 3"),
        ("late.py", "late()\n        ", "late(), 1\n        "),
        ("programs/run.py", "# comment", "# another"),
        ("programs/run.py", "Doc.", "Other."),
        ("profiles.py", "SETTING = 1", "SETTING = 2"),
    ],
)
def test_what_cannot_run_does_not(package, file, old, new):
    assert package() == package(file, old, new)


def test_names_of_imports_and_modules_do_not_matter(package):
    before = package()
    renamed = {name.replace("tools", "kit"): code for name, code in PACKAGE.items()}
    renamed["work.py"] = renamed["work.py"].replace("tools as kit", "kit as gear").replace("kit.", "gear.")
    assert package(files=renamed) == before
    moved = dict(PACKAGE) | {"goods.py": PACKAGE["shop/counter.py"]}
    moved["shop/__init__.py"] = moved["shop/__init__.py"].replace("small.shop.counter", "small.goods")
    assert package(files=moved) == before
    direct = {
        **PACKAGE,
        "work.py": PACKAGE["work.py"].replace("sell as trade", "sell").replace("trade(", "sell("),
    }
    assert package(files=direct) == before
    assert package(start=Place("small.tools", "saw")) != before


def test_a_package_may_import_a_part_of_its_own_by_name(package):
    files = PACKAGE | {
        "shop/__init__.py": "from small.shop import counter, boxes\nsell, Box = counter.sell, boxes.Box"
    }
    assert package(files=files) != package("shop/counter.py", "PRICE = 5", "PRICE = 6", files=files)


def test_the_key_of_a_function_here_is_found():
    assert len(code_key(textwrap.dedent)) == 16
    assert code_key(CodeBase.key) != code_key(CodeBase.find)
