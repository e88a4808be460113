"""The plot of score against size and latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.drawing import (
    COLOURS,
    MARKERS,
    NARROW,
    WIDTH,
    Plot,
    legend_columns,
    new_figure,
    shortened,
    to_svg,
)
from bertkit.comparison.figures import PARAMETERS, PER_EXAMPLE
from bertkit.comparison.trade_off import ParetoFront, TradeOff, notes

MOST_NAMED = 12
TITLES = {PARAMETERS.key: "parameters (million)", PER_EXAMPLE.key: "time per example (ms)"}
STEPS = ((1, 2, 5), (1, 1.5, 2, 3, 5, 7))  # ticks of a decade
LINE, ROW = 0.22, 3.3  # inches: of the legend, of a panel


def trade_off(made: Comparison, narrow: bool = False) -> Plot | None:
    """A panel for each cost; a teacher is a star."""
    found = made.trade_off
    if found is None or not found.fronts:
        return None
    shown = named(found)
    labels = [shortened(found.contenders[at].name) for at in shown]
    rows, panels = math.ceil(len(labels) / legend_columns(labels, NARROW if narrow else WIDTH)), len(found.fronts)
    figure, axes = new_figure(panels, ROW + LINE * rows / (panels if narrow else 1), narrow)
    handles: dict[int, Artist] = {}
    for panel, front in zip(axes, found.fronts, strict=True):
        handles |= _panel(panel, found, front, shown)
        panel.sharey(axes[0])
    for panel in axes if narrow else axes[:1]:
        panel.set_ylabel(found.metric)
    there = [(handles[at], label) for at, label in zip(shown, labels, strict=True) if at in handles]
    columns = legend_columns([label for _, label in there], figure.get_figwidth())
    figure.legend(*zip(*there, strict=True), loc="outside lower center", ncols=columns)
    plot = to_svg(figure, f"trade_off{narrow}")
    costs = " and ".join({PARAMETERS.key: "size", PER_EXAMPLE.key: "latency"}[one.cost] for one in found.fronts)
    return Plot(f"{found.metric} against {costs}", plot, caption(found))


def named(found: TradeOff) -> list[int]:
    """Numbers of the contenders that the legend names: those of a front and teachers before others, in their order."""
    first = {at for front in found.fronts for at in front.members}
    first |= {at for at, one in enumerate(found.contenders) if one.is_teacher}
    wanted = sorted(range(len(found.contenders)), key=lambda at: at not in first)
    return sorted(wanted[:MOST_NAMED])


def log_ticks(low: float, high: float) -> list[float]:
    """Places on a logarithmic axis of an extent above 0: round ones where at least two lie within, else the ends."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if len(decades) > 4:
        return [10.0**decade for decade in decades if low <= 10.0**decade <= high]
    for steps in STEPS:
        inside = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
        if len(inside) > 1:
            return inside
    return [low, high]


def caption(found: TradeOff) -> str:
    """What is drawn, and why latencies are not."""
    teachers = [one for one in found.contenders if one.is_teacher]
    parts = ["Line: the Pareto front, those that no other beats in both, by their means."]
    if any(one.score.sd is not None for one in found.contenders):
        parts.append("Whiskers: one standard deviation over the seeds.")
    if any(one.latency and one.latency.sd is not None for one in teachers):
        parts.append("A teacher's latency: over its students' records.")
    parts += ["Star: a teacher, as scored and timed in its students' runs."] if teachers else []
    more = len(found.contenders) - MOST_NAMED
    parts += [f"Grey: {more} more, named in the table."] if more > 0 else []
    return " ".join([*parts, *notes(found)])


def _panel(axes: Axes, found: TradeOff, front: ParetoFront, shown: Sequence[int]) -> dict[int, Artist]:
    """What the legend names, by the contender's number."""
    costs = {at: cost for at, one in enumerate(found.contenders) if (cost := one.cost(front.cost)) is not None}
    line = [(costs[at].mean, found.contenders[at].score.mean) for at in front.members]
    axes.plot(*zip(*line, strict=True), color="#777777", linewidth=1.0, zorder=1)
    handles: dict[int, Artist] = {}
    for at, cost in costs.items():
        one = found.contenders[at]
        marker = MARKERS[(at + at // len(COLOURS)) % len(MARKERS)]  # so that a colour that comes again has another
        # hollow, for the teacher's own run may lie below it
        star: dict[str, Any] = {"marker": "*", "markersize": 12, "markerfacecolor": "none"}
        made = axes.errorbar(
            cost.mean, one.score.mean, xerr=cost.sd or None, yerr=one.score.sd or None, capsize=3, elinewidth=1.0,
            linestyle="none", color=COLOURS[at % len(COLOURS)] if at in shown else "#aaaaaa",
            **(star if one.is_teacher else {"marker": marker, "markersize": 6}),
        )  # fmt: skip
        if at in shown:
            handles[at] = made.lines[0]
    axes.set_title(TITLES[front.cost])
    _scale(axes, front.cost, [cost.mean for cost in costs.values()])
    return handles


def _scale(axes: Axes, cost: str, means: Sequence[float]) -> None:
    """Sizes on a logarithmic axis: its usual numbers are formulas, which stay unset here."""
    if cost != PARAMETERS.key or min(means) <= 0:
        axes.set_xlim(left=0)
        return
    axes.set_xscale("log")
    ticks = log_ticks(min(means), max(means))
    axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
