"""What the tool answers, and how a worker's report becomes the observation that the model reads."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from mtdpo_lib.profiles.sections import SandboxSettings

# The authors' wording for what is no ordinary output (their python_executor.py).
TIMEOUT_TEXT = "Timeout Error"
EMPTY_TEXT = "Result is not defined"
NAME_CHARACTERS = 80  # of an error's class: a program may invent any name
_ADDRESS = re.compile(r"(?<= at 0x)[0-9A-Fa-f]{5,}")  # of an object, differs from process to process


class SandboxUnavailable(RuntimeError):
    """The sandbox cannot start on this machine, or cannot go on; there is no weaker one to fall back to."""


@dataclass(frozen=True)
class ToolResult:
    """What the tool answered.

    Attributes:
        text: the observation o_h shown to the model; for an error its type and message only (appendix B).
        error: class of the error, None when the program ran to its end.
        message: what the error said, None without one.
        status: "ok", "error", "timeout", "memory" (over the limit) or "killed" (its interpreter ended or had to be).
        seconds: wall time.
    """

    text: str
    error: str | None
    message: str | None
    status: str
    seconds: float


def cut_note(characters: int) -> str:
    """Stands where the middle of a long output was left out."""
    return f"\n[... {characters} characters cut ...]\n"


def to_result(answer: dict[str, Any], settings: SandboxSettings, seconds: float) -> ToolResult:
    """The worker's answer as a result. The guest may have written anything: types and lengths are checked here."""
    status = answer.get("status")
    if status == "timeout":
        return ToolResult(TIMEOUT_TEXT, "TimeoutError", None, "timeout", seconds)
    if status == "crashed":
        # A C stack overflowed where CPython raises RecursionError; it took the interpreter down, twice.
        message = "maximum recursion depth exceeded"
        return ToolResult(f"RecursionError: {message}", "RecursionError", message, "killed", seconds)
    try:
        report = json.loads(_ADDRESS.sub("...", answer["report"]))
        head, tail, cut = str(report["head"]), str(report["tail"]), int(report["cut"])
        error, message = report["error"], str(report["message"] or "")
        line = str(report["line"] or "")
    except (KeyError, TypeError, ValueError):  # the program ended its interpreter, or forged the report
        return ToolResult("SystemExit", "SystemExit", None, "killed", seconds)
    limit = settings.output_characters
    if error is not None:
        error = " ".join(str(error).split())[:NAME_CHARACTERS] or "Exception"
        message, line = (part[:limit].partition("\n")[0] for part in (message, line))
        text = f"{error}: {message}" if message else error
        if settings.show_error_line and line:
            text += f"\n{line}"
        return ToolResult(text, error, message, "memory" if error == "MemoryError" else "error", seconds)
    text = head[:limit] + (cut_note(cut) if cut > 0 else "") + tail[:limit]
    return ToolResult(text.strip() or EMPTY_TEXT, None, None, "ok", seconds)
