"""Colours and markers: safe for colour-blind readers, and what colours say, markers repeat."""

from __future__ import annotations

BLACK, GREY, BLUE, ORANGE, GREEN, RED, PURPLE, SKY = (
    "#000000", "#777777", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip

Style = tuple[str, str]  # colour and marker
