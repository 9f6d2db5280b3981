"""Silence for libraries that comment on every load and step."""

from __future__ import annotations

import functools
import logging
import warnings


@functools.cache
def quiet_libraries() -> None:
    """Silence, once, what these libraries say at every load and step; errors still come through."""
    import datasets
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    for name in ("trl", "bitsandbytes"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*pin_memory.*")
