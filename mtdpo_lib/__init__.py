"""Multi-turn direct preference learning for math agents (arXiv 2409.02392): the parts that the notebooks share."""

import logging
import warnings

__version__ = "0.2.0"

# Said by libraries at import, and of no use to a reader: no widgets are needed, 4-bit works without `kernels`.
warnings.filterwarnings("ignore", message="IProgress not found")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
