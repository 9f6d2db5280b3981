"""Lessons: what only notebooks and courses need."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mtdpo_lib.lessons.lesson import Lesson, pipeline_map, show_tokens

__all__ = ["Lesson", "pipeline_map", "show_tokens"]


def __getattr__(name: str) -> Any:
    """What notebooks import; it is loaded, and torch with it, when it is asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mtdpo_lib.lessons import lesson

    return getattr(lesson, name)
