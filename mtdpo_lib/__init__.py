"""Multi-turn direct preference learning for math agents (arXiv 2409.02392): the parts that the notebooks share."""

__version__ = "0.1.0"
