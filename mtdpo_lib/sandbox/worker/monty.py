"""Backend "monty": a small Python interpreter in Rust (pydantic-monty), for lessons that need arithmetic only.

No sympy, no generators, no inheritance, and some last digits of its own (``round(2.675, 2)``): results differ from
CPython's, so it never stands in for another backend.
"""

import json

import pydantic_monty
from guest import _Capped


class Backend:
    """Sessions in processes of their own, kept by the package's pool."""

    walls = ("processes of the package's own pool",)

    def __init__(self, settings):
        self.output = settings["output_characters"]
        self.memory_mib = settings["memory_mib"]
        self.limits = {
            "max_feed_duration_secs": settings["seconds"],
            "max_memory": settings["memory_mib"] << 20,
            "max_total_sleep_secs": settings["seconds"],
        }
        self.pool = pydantic_monty.Monty(request_timeout=settings["seconds"] + 1)
        self.pool.__enter__()
        self.sessions = {}

    def run(self, number, code):
        """Run `code` in session `number`."""
        if number not in self.sessions:
            policy = {"sleep": "zero"}
            checkout = self.pool.checkout(
                limits=self.limits, os_policy=policy, script_name="<cell>", assert_message_annotations=False
            )
            self.sessions[number] = checkout, checkout.__enter__()
        capture, error, message = _Capped(self.output), None, None
        try:
            session = self.sessions[number][1]
            value = session.feed_run(code, print_callback=lambda _, text: capture.write(text))
            if value is not None:
                capture.write(repr(value))
        except pydantic_monty.MontyCrashedError:
            return {"status": "killed"}
        except pydantic_monty.MontyError as problem:
            inner = problem.exception()
            error, message = type(inner).__name__, str(inner).partition("\n")[0][: self.output]
        if error == "TimeoutError":
            return {"status": "timeout"}
        report = {"head": "".join(capture.head), "tail": capture.tail, "cut": capture.cut}
        report = json.dumps({**report, "error": error, "message": message, "line": ""})
        return {"status": "ran", "report": report, "mib": 16}  # a session's process takes 9 MiB

    def make_ready(self):
        """Nothing is started before it is needed."""

    def forget(self, number):
        """End a session's process."""
        checkout, _ = self.sessions.pop(number, (None, None))
        if checkout is not None:
            checkout.__exit__(None, None, None)
