"""The tool: a Python interpreter for code written by a model. Knows nothing of language models.

See: notebook 03_tool_sandbox.
"""

from mtdpo_lib.sandbox.pool import SandboxPool, Session
from mtdpo_lib.sandbox.results import SandboxUnavailable, ToolResult

__all__ = ["SandboxPool", "SandboxUnavailable", "Session", "ToolResult"]
