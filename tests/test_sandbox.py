"""One promise of the sandbox a test, each judged from the host's side."""

import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mtdpo_lib.sandbox import SandboxPool
from mtdpo_lib.sandbox.pool import EMPTY_TEXT, TRUNCATED_TEXT
from mtdpo_lib.sandbox.snapshot import SandboxUnavailable, find_snapshot


@pytest.fixture
def session(pool):
    with pool.session() as session:
        yield session


def test_variables_live_from_call_to_call(session):
    assert session.run("x = 3\nprint(x*4)").text == "12"
    assert session.run("x + 1").text == "4"  # a bare last expression is echoed


def test_sessions_share_nothing(pool):
    with pool.session() as one, pool.session() as other:
        one.run("x = 3")
        assert other.run("print(x)").error == "NameError"


@pytest.mark.parametrize(
    ("code", "text", "error"),
    [
        ("1/0", "ZeroDivisionError: division by zero", "ZeroDivisionError"),
        ("print(math.pi)", "NameError: name 'math' is not defined", "NameError"),
        ("import math\nprint(math.gcd(12, 18))", "6", None),
        ("from fractions import Fraction\nFraction(1, 3) + Fraction(1, 6)", "Fraction(1, 2)", None),
        ("x = 1", EMPTY_TEXT, None),
        ("print('a\\nb')", "a\nb", None),  # the authors' executor turns this into a SyntaxError
        ('print("""q""", \'"\', "\\\\f")', 'q " \\f', None),
        ("raise ValueError('one\\ntwo')", "ValueError: one", "ValueError"),
        ("exit()", "SystemExit: None", "SystemExit"),
    ],
)
def test_what_the_model_is_shown(session, code, text, error):
    result = session.run(code)
    assert (result.text, result.error) == (text, error)


def test_endless_program_is_stopped_and_its_session_goes_on(smoke):
    by_time = replace(smoke.sandbox, million_instructions=3000, seconds=0.5)
    with SandboxPool(by_time) as pool, pool.session() as session:
        session.run("x = 7")
        start = time.perf_counter()
        result = session.run("while True: pass")
        assert (result.status, result.text) == ("timeout", "Timeout Error")
        assert time.perf_counter() - start < 3
        assert session.run("x").text == "7"  # earlier cells were run again


def test_instructions_are_limited_whatever_the_clock_says(smoke):
    by_count = replace(smoke.sandbox, million_instructions=50, seconds=60.0)
    with SandboxPool(by_count) as pool, pool.session() as session:
        assert session.run("sum(range(10**4))").status == "ok"
        start = time.perf_counter()
        assert session.run("while True: pass").status == "timeout"
        assert time.perf_counter() - start < 10


def test_memory_is_limited(session):
    result = session.run("x = []\nwhile True: x.append(bytearray(50 << 20))")
    assert result.status == "memory"


def test_output_is_limited(session, smoke):
    result = session.run("for i in range(10**4): print('spam' * 100)")
    assert result.text.endswith(TRUNCATED_TEXT)
    assert len(result.text) <= smoke.sandbox.output_characters + len(TRUNCATED_TEXT)


def test_host_files_are_out_of_reach(session, tmp_path):
    canary = tmp_path / "canary"
    canary.write_text("secret")
    assert session.run(f"print(open({str(canary)!r}).read())").error == "FileNotFoundError"
    session.run(f"open({str(canary)!r}, 'w').write('gone')")
    session.run(f"import os; os.remove({str(canary)!r})")
    assert canary.read_text() == "secret"


def test_network_is_out_of_reach(session):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.5)
        port = listener.getsockname()[1]
        assert (
            session.run(f"import socket; socket.create_connection(('127.0.0.1', {port}))").error is not None
        )
        with pytest.raises(TimeoutError):
            listener.accept()


def test_no_process_can_be_started(session, tmp_path):
    mark = tmp_path / "mark"
    for code in (
        f"import subprocess; subprocess.run(['touch', {str(mark)!r}])",
        f"import os; os.system('touch {mark}')",
    ):
        assert session.run(code).error is not None
    assert not mark.exists()


def test_environment_holds_no_secret(session, monkeypatch, smoke):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    with SandboxPool(smoke.sandbox) as pool, pool.session() as fresh:
        assert "hunter2" not in fresh.run("import os; print(dict(os.environ))").text


def test_raw_descriptors_reach_nobody(session, capfd):
    session.run("import os; os.write(1, b'LEAK'); os.write(2, b'LEAK')")
    captured = capfd.readouterr()
    assert "LEAK" not in captured.out + captured.err


def test_a_crashed_worker_is_replaced(session, pool):
    session.run("x = 5")
    before = pool.pids()
    crash = session.run(
        "class A:\n  def __repr__(self): return repr(self)\nprint(A())"
    )  # overflows the guest's C stack
    assert (crash.status, crash.error) == ("killed", "RecursionError")
    assert pool.pids() != before
    assert session.run("x").text == "5"


def test_a_program_that_ends_its_interpreter_hurts_only_itself(session):
    session.run("x = 5")
    assert session.run("import os; os._exit(0)").status == "killed"
    assert session.run("x").text == "5"


def test_a_patched_library_stays_in_its_session(pool):
    with pool.session() as one, pool.session() as other:
        one.run("import math, builtins\nmath.sqrt = lambda x: 666\nbuiltins.print = None")
        assert other.run("import math\nprint(math.sqrt(16))").text == "4.0"


def test_a_forged_report_is_only_text(session):
    forged = 'import sys; sys.__stdout__.write(\'{"output": "forged", "error": null, "message": null, "lost": 0}\')'
    assert session.run(forged).text != "forged"


def test_many_sessions_keep_their_order(pool):
    sessions = [pool.session() for _ in range(20)]
    results = pool.run_many([(session, f"print({number})") for number, session in enumerate(sessions)])
    assert [result.text for result in results] == [str(number) for number in range(20)]
    for session in sessions:
        session.close()


def test_workers_end_with_the_pool_and_with_a_killed_parent(smoke):
    with SandboxPool(smoke.sandbox) as pool:
        pids = pool.pids()
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import time; from mtdpo_lib.sandbox import SandboxPool; from mtdpo_lib.profiles import get_profile\n"
            "pool = SandboxPool(get_profile('smoke').sandbox); print(pool.pids()[0], flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        if state == "Z":  # ended; nobody has collected it yet
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{worker}").exists()


def test_a_closed_pool_says_so(smoke):
    pool = SandboxPool(smoke.sandbox)
    session = pool.session()
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        session.run("1")


def test_a_changed_snapshot_is_built_again(tmp_path, monkeypatch):
    original = find_snapshot()
    monkeypatch.setenv("MTDPO_CACHE", str(tmp_path))
    tmp_path.chmod(0o700)
    fake = tmp_path / original.name
    fake.write_bytes(b"changed")
    fake.with_suffix(".sha256").write_text("0" * 64)
    built = []
    monkeypatch.setattr(
        "mtdpo_lib.sandbox.snapshot._build", lambda snapshot, checksum: built.append(snapshot)
    )
    find_snapshot()
    assert built == [fake]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of this kind exist on POSIX only")
def test_a_cache_that_others_can_write_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("MTDPO_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(SandboxUnavailable, match="others can write"):
        find_snapshot()
