"""The tool: a Python interpreter for code written by a model. Knows nothing of language models.

See: notebook 03_tool_sandbox.
"""

from mtdpo_lib.sandbox.pool import SandboxPool, Session, ToolResult
from mtdpo_lib.sandbox.snapshot import SandboxUnavailable

__all__ = ["SandboxPool", "SandboxUnavailable", "Session", "ToolResult"]
