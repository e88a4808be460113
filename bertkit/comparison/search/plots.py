"""The picture of a search: scores over its trials, and by each setting that was searched."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from functools import partial

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from bertkit.comparison.drawing import COLOURS, STYLE, new_figure, to_svg
from bertkit.comparison.search.report import Findings
from bertkit.comparison.search.space import Dimension
from bertkit.comparison.search.study import COMPLETE, PRUNED, Tried
from bertkit.data.tasks.metrics import worth

HEIGHT = 3.2  # inches
SIZE = 22  # of a point, in square points
MOST_KEYS = 5  # panels beside the first; tune.json and trials.csv have all
LOOKS = {COMPLETE: ("o", COLOURS[0], "complete"), PRUNED: ("x", COLOURS[4], "pruned, at its last evaluation")}


def trials_plot(found: Findings) -> str:
    """As an SVG file."""
    shown = found.space[:MOST_KEYS]
    with rc_context(STYLE):  # type: ignore[arg-type]
        figure, (first, *beside) = new_figure(1 + len(shown), HEIGHT)
        _over_trials(first, found)
        for axes, one in zip(beside, shown, strict=True):
            _by_setting(axes, one, found.trials)
            axes.sharey(first)
            axes.tick_params(labelleft=False)
        handles, labels = first.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)))
        return to_svg(figure, "trials")


def _over_trials(axes: Axes, found: Findings) -> None:
    for state, (marker, colour, label) in LOOKS.items():
        points = [(one.number, score) for one, score in _scored(found.trials) if one.state == state]
        if points:
            numbers, scores = zip(*points, strict=True)
            axes.scatter(numbers, scores, marker=marker, color=colour, s=SIZE, label=label)
    complete = [(one.number, score) for one, score in _scored(found.trials) if one.state == COMPLETE]
    best = itertools.accumulate((score for _, score in complete), partial(max, key=partial(worth, found.metric)))
    steps = [(number, score) for (number, _), score in zip(complete, best, strict=True)]
    axes.plot(*zip(*steps, strict=True), drawstyle="steps-post", color="#777777", linewidth=1.0, label="best so far")
    axes.set_xlabel("trial")
    axes.set_title(f"dev {found.metric}")


def _by_setting(axes: Axes, dimension: Dimension, trials: Iterable[Tried]) -> None:
    names = [str(choice) for choice in dimension.choices]
    for one, score in _scored(trials):
        value = one.settings[dimension.key]
        marker, colour, _ = LOOKS[one.state]
        at = names.index(str(value)) if names else float(value or 0)
        axes.scatter([at], [score], marker=marker, color=colour, s=SIZE)
    if names:
        axes.set_xticks(range(len(names)), [_short(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
    elif dimension.log:
        axes.set_xscale("log")
        _ticks(axes, dimension.tried)
    axes.set_xlabel(dimension.key)


def _ticks(axes: Axes, ends: Sequence[object]) -> None:
    """The ends and the geometric middle: the usual numbers of a logarithm are formulas, which stay unset here."""
    low, high = (float(str(end)) for end in ends)
    places = [low, math.sqrt(low * high), high]
    axes.set_xticks(places, [f"{place:.2g}" for place in places])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:5]}…{name[-6:]}"


def _scored(trials: Iterable[Tried]) -> list[tuple[Tried, float]]:
    return [(one, one.score) for one in trials if one.score is not None and one.state in LOOKS]
