"""Colours: one colour, dash and marker for each family, the same on every page, and those of roles on a front.

The colours are those of Okabe and Ito ("Color Universal Design", 2008), told apart by the colour-blind and legible on
white and on black; no meaning is carried by a colour alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Style:
    """How a family is drawn: ``colour`` of its lines, points and cells, ``ink`` of text on such a cell, plotly's
    ``dash`` and ``symbol``, and the ``letter`` that stands for it in a narrow cell."""

    colour: str
    ink: str
    dash: str
    symbol: str
    letter: str


BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, VERMILLION, GREY = "#56B4E9", "#D55E00", "#8C8C8C"
BETWEEN = "#8F5B9E"
"""The middle of a scale of colours from `SKY` to `VERMILLION`, legible on white and on black."""

FAMILIES: Mapping[str, Style] = {
    "full": Style(BLUE, "#FFFFFF", "solid", "circle", "F"),
    "sliding": Style(ORANGE, "#000000", "dash", "square", "W"),
    "linear": Style(GREEN, "#FFFFFF", "dot", "diamond", "L"),
    "sparse": Style(PURPLE, "#000000", "dashdot", "triangle-up", "S"),
    "memory": Style(SKY, "#000000", "longdash", "cross", "M"),
    "hybrid": Style(VERMILLION, "#FFFFFF", "longdashdot", "star", "H"),
    "other": Style(GREY, "#000000", "8px,2px,2px,2px", "x", "O"),
}


def style_of(family: str) -> Style:
    """The style of a family; one that is not known is drawn as "other"."""
    return FAMILIES.get(family, FAMILIES["other"])
