"""The tool: a Python interpreter for code written by a model. Knows nothing of language models.

See: notebook 03_tool_sandbox.
"""

from mtdpo_lib.sandbox.pool import Calls, SandboxPool, Session, kept_pool
from mtdpo_lib.sandbox.results import SandboxUnavailable, ToolResult

__all__ = ["Calls", "SandboxPool", "SandboxUnavailable", "Session", "ToolResult", "kept_pool"]
