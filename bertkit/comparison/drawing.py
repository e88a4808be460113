"""How plots look: SVG whose text stays text, one form for wide pages and one for narrow ones.

Colours and dashes differ, so that print in grey reads too.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# Okabe and Ito 2008: told apart by colour-blind readers too
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A6D00")
DASHES = ("-", "--", "-.", ":")
MARKERS = "osD^v<>P"
WIDTH, NARROW = 11.0, 5.0  # inches of 72 points: 1,056 and 480 CSS pixels
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "bertkit", "text.parse_math": False, "font.size": 10.0,
    "font.family": ["sans-serif"], "font.sans-serif": ["Arial", "Helvetica", "Liberation Sans", "DejaVu Sans"],
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd",
    "grid.linewidth": 0.6, "axes.axisbelow": True, "legend.frameon": False, "figure.constrained_layout.use": True,
    "axes.titlesize": 10.0, "axes.titlelocation": "left",
}  # fmt: skip


@dataclass(frozen=True)
class Plot:
    """One picture."""

    title: str
    svg: str
    caption: str
    narrow: str = ""  # the same for a narrow page; "": there is no other


def new_figure(panels: int, height: float, narrow: bool = False) -> tuple[Figure, list[Axes]]:
    """Panels beside one another; on a narrow page below one another, each `height` inches."""
    rows, columns = (panels, 1) if narrow else (1, panels)
    figure = Figure(figsize=(NARROW if narrow else WIDTH, height * rows))
    FigureCanvasSVG(figure)
    made = figure.subplots(rows, columns, squeeze=False)
    return figure, list(made.ravel())


def in_blocks(curve: np.ndarray, points: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(middle of each block, counted from 1, its mean, its length): a curve of at most so many points."""
    block = max(1, -(-len(curve) // points))
    starts = np.arange(0, len(curve), block)
    counts = np.diff([*starts, len(curve)])
    return starts + (counts + 1) / 2, np.add.reduceat(curve, starts) / counts, block


def both_forms(draw: Callable[[bool], Plot | None]) -> Plot | None:
    """What `draw` makes for a wide page, with its form for a narrow one; None where there is nothing to draw."""
    wide, narrow = draw(False), draw(True)
    return None if wide is None or narrow is None else replace(wide, narrow=narrow.svg)


def look(number: int) -> dict[str, Any]:
    """Colour and dashes of the curve with this number."""
    dash = number + number // len(COLOURS)  # so that a colour that comes again has another
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[dash % len(DASHES)]}


def legend_columns(labels: Sequence[str], inches: float = WIDTH) -> int:
    """As many as fit beside one another."""
    return max(1, min(len(labels), int(150 * inches / WIDTH) // (max(map(len, labels), default=1) + 8)))


def shortened(name: str) -> str:
    """A system's name as a label."""
    name = name if len(name) <= 40 else f"{name[:19]}…{name[-20:]}"
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves such a label out


def below(figure: Figure, axes: Axes) -> None:
    """The legend of `axes`, below all panels."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels, figure.get_figwidth()))


def to_svg(figure: Figure, salt: str) -> str:
    """The picture's element alone; ids are those of no other picture on the page."""
    stream = io.StringIO()
    with _salted(salt):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    # groups are named alike in every picture, and nothing refers to them
    return re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])


@contextmanager
def _salted(salt: str) -> Iterator[None]:
    with rc_context({"svg.hashsalt": salt}):
        yield
