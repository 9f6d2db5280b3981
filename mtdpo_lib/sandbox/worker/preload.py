"""What every interpreter of the sandbox has imported and warmed up before its first program.

Runs once, while the snapshot is built or before the zygote forks, so that a program's own import costs nothing and its first
equation is as fast as its second. Programs have a namespace of their own: one that forgets its import still fails.

What programs may import in every backend is `STANDARD`, sympy and mpmath. Beyond it backends differ: "wasm" also finds the
rest of the standard library as far as WebAssembly has it (``asyncio``, but no ``ctypes``), a zygote's child only what this
machine's CPython and sympy had loaded by then (``ctypes``, but no ``asyncio``).
"""

import datetime
import gc
import importlib
import os
import pkgutil
import random
import sys
import time
import types
import uuid

STANDARD = """
    _pylong _strptime abc argparse array ast base64 binascii bisect calendar cmath collections collections.abc
    concurrent.futures configparser contextlib contextvars copy csv dataclasses datetime decimal difflib enum fractions
    functools gc getopt graphlib hashlib heapq html html.parser inspect io itertools json keyword linecache locale logging
    math numbers operator optparse os os.path pathlib pickle platform pprint queue random re reprlib sched secrets shlex
    shutil statistics string stringprep struct sys tempfile textwrap threading time timeit token tokenize tomllib traceback
    types typing unicodedata urllib.parse uuid warnings weakref xml.etree.ElementTree zlib zoneinfo
""".split()
SYMPY = """
    sympy sympy.abc sympy.combinatorics sympy.geometry sympy.ntheory sympy.solvers.diophantine sympy.solvers.inequalities
    sympy.solvers.solveset sympy.stats sympy.parsing.sympy_parser sympy.functions.combinatorial.numbers sympy.calculus.util
""".split()

SKIPPED = """
    tests benchmarks plotting physics interactive codegen sandbox testing latex this trace pytest randtest runtests tmpfiles
    compatibility conftest __main__
""".split()

# Time and chance are a session's own, so that what a program prints is fixed by its history: whatever is run again after the
# same cells gives the same again. The clock moves when it is looked at or slept on, and only then.
SECOND, TICK = 10**9, 10**6  # in nanoseconds; a tick is what passes whenever somebody looks at the clock
NEW_YEAR_2025 = 1_735_689_600 * SECOND
CLOCKS = {"time": NEW_YEAR_2025, "clock_gettime": NEW_YEAR_2025}
CLOCKS |= dict.fromkeys(("monotonic", "perf_counter", "process_time", "thread_time"), 0)
CLOCK, CHANCE = types.SimpleNamespace(passed=0), random.Random(0)


def _import_all(names):
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError:  # not on this platform
            continue


def _import_sympy():
    """sympy wants two names of ctypes, which WebAssembly lacks, only to learn the size of a C long."""
    stub = None
    if sys.platform == "wasi":
        stub = types.ModuleType("ctypes")
        stub.c_long, stub.sizeof = int, lambda kind: 4
        sys.modules["ctypes"] = stub
    _import_all(SYMPY)
    if stub is not None:
        del sys.modules["ctypes"]


class _OnlyOffered:
    """Finder for the zygote: refuses the packages that happen to be installed here and that "wasm" does not have."""

    OFFERED = sys.stdlib_module_names | {"sympy", "mpmath"}

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] not in cls.OFFERED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _import_every_part(package):
    """All submodules of use: a zygote's programs cannot open files, so nothing can be imported later."""
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        if module.name.rpartition(".")[2] in SKIPPED:
            continue
        try:
            part = importlib.import_module(module.name)
        except Exception:  # parts that need other packages
            continue
        if module.ispkg:
            _import_every_part(part)


def _warm():
    """One program of each common kind: fills sympy's caches and runs its late imports."""
    sp = importlib.import_module("sympy")

    x, y = sp.symbols("x y")
    sp.solve(x**2 - 5 * x + 6, x), sp.solve([x + y - 3, x - y - 1], [x, y]), sp.solve(x**3 - 2 * x + 1)
    sp.solve(x**2 - 4 > 0, x), sp.solveset(x**2 - 4, x), sp.Eq(x, 1), sp.diff(sp.exp(x) * x, x)
    sp.integrate(x * sp.sin(x), x), sp.limit(sp.sin(x) / x, x, 0), sp.summation(x, (x, 1, 10))
    sp.series(sp.exp(x), x, 0, 4), sp.simplify(sp.sin(x) ** 2 + sp.cos(x) ** 2), sp.factor(x**2 - 1)
    sp.Matrix([[1, 2], [3, 4]]).inv(), sp.factorint(360), sp.nsimplify(0.5), sp.N(sp.pi, 20)
    str(sp.sqrt(8)), sp.latex(x**2 / y)


def _fix_chance():
    """All that asks the system for chance asks `CHANCE` from now on."""
    seed = random.Random.seed
    random.Random.seed = lambda self, a=None, version=2: seed(
        self, CHANCE.getrandbits(64) if a is None else a, version
    )
    os.urandom = CHANCE.randbytes
    vars(random).update(seed=random._inst.seed, _urandom=CHANCE.randbytes)
    vars(uuid).update(_generate_time_safe=None, _node=1)


def _fix_time():
    """All that looks at the system's clock looks at `CLOCK` from now on."""
    really_sleep = time.sleep

    def look(start):
        CLOCK.passed += TICK
        return start + CLOCK.passed

    def sleep(seconds):
        really_sleep(seconds)
        CLOCK.passed += int(seconds * SECOND)

    def at_now(call, now, place=0):
        return lambda *given: call(*given, *([] if len(given) > place else [now()]))

    for name, start in CLOCKS.items():
        setattr(time, name, lambda *_, start=start: look(start) / SECOND)
        setattr(time, f"{name}_ns", lambda *_, start=start: look(start))
    time.sleep = sleep
    for name in ("gmtime", "localtime", "ctime"):
        setattr(time, name, at_now(getattr(time, name), time.time))
    time.asctime, time.strftime = (
        at_now(time.asctime, time.localtime),
        at_now(time.strftime, time.localtime, 1),
    )
    # These two look by themselves, and their class can be changed from within only.
    methods = gc.get_referents(datetime.datetime.__dict__)[0]
    methods["now"] = classmethod(lambda cls, tz=None: cls.fromtimestamp(time.time(), tz))
    methods["utcnow"] = classmethod(lambda cls: cls.now(datetime.UTC).replace(tzinfo=None))


def _mtdpo_begin():
    """A session begins: with the same chance and at the same time as any other, on every machine."""
    for source in (CHANCE, random, sys.modules["sympy.core.random"]):
        source.seed(0)
    CLOCK.passed = 0


sys.argv, sys.orig_argv = [""], []
_fix_chance()
_fix_time()
_import_all(STANDARD)
_import_sympy()
_warm()
