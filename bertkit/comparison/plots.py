"""The plots of the page."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.drawing import (
    COLOURS,
    MARKERS,
    STYLE,
    Plot,
    below,
    both_forms,
    in_blocks,
    legend_columns,
    look,
    new_figure,
    shortened,
    to_svg,
)
from bertkit.comparison.figures import digits
from bertkit.comparison.systems import System
from bertkit.comparison.time_to_score import course
from bertkit.comparison.trade_off_plot import trade_off

POINTS = 300  # of a curve; more are averaged in blocks


def mean_curve(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(updates, mean, standard deviation or None) over the seeds, as far as all of them go."""
    curves = [entry.losses for entry in system.entries if len(entry.losses)]
    length = min(map(len, curves))
    parts = [in_blocks(curve[:length], POINTS) for curve in curves]
    means = np.array([mean for _, mean, _ in parts])
    return parts[0][0], means.mean(0), means.std(0, ddof=1) if len(curves) > 1 else None


def distances(baseline: System, shown: Sequence[System]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number -> (updates, absolute difference from the baseline's loss; NaN where it is 0), of as many updates."""
    if baseline not in shown:
        return {}
    at, base, _ = mean_curve(baseline)
    found = {}
    for number, system in enumerate(shown):
        x, mean, _ = mean_curve(system)
        if system is not baseline and np.array_equal(x, at):
            distance = np.abs(mean - base)
            distance[distance == 0] = np.nan  # a logarithm has no place for it
            if np.isfinite(distance).any():
                found[number] = x, distance
    return found


MOST_CURVES, MOST_BARS = 12, 30


def all_plots(made: Comparison) -> dict[str, Plot]:
    """Those for which there is something to draw, by name."""
    found = {}
    with rc_context(STYLE):  # type: ignore[arg-type]
        for name, draw in DRAWN.items():
            if (plot := both_forms(functools.partial(draw, made))) is not None:
                found[name] = plot
    return found


def losses(made: Comparison, narrow: bool = False) -> Plot | None:
    """Training loss by update, and its distance from the baseline's: curves that agree hide one another."""
    shown = [system for system in made.systems if any(len(entry.losses) for entry in system.entries)]
    if not shown:
        return None
    apart = distances(made.baseline, shown[:MOST_CURVES])
    figure, (axes, *beside) = new_figure(2 if apart else 1, 3.6, narrow)
    for number, system in enumerate(shown[:MOST_CURVES]):
        x, mean, sd = mean_curve(system)
        axes.plot(x, mean, label=shortened(system.name), linewidth=max(1.2, 3.2 - 0.5 * number), **look(number))
        if sd is not None:
            axes.fill_between(x, mean - sd, mean + sd, color=COLOURS[number % len(COLOURS)], alpha=0.15, linewidth=0)
    for panel, title in zip((axes, *beside), ("training loss", "distance from the baseline's loss"), strict=False):
        panel.set_xlabel("update")
        panel.set_title(title)
    for number, (x, distance) in apart.items():
        marker = {"marker": MARKERS[number % len(MARKERS)], "markersize": 2.5}
        beside[0].semilogy(x, distance, linewidth=1.2, **marker, **look(number))
    for panel in beside:  # the usual numbers are formulas, which stay unset here
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:.0e}")
        panel.yaxis.set_minor_formatter(NullFormatter())
    below(figure, axes)
    longest = max(len(entry.losses) for system in shown for entry in system.entries)
    block = max(1, -(-longest // POINTS))
    caption = f"Each point: mean of {block} updates. " if block > 1 else ""
    if any(len(system.entries) > 1 for system in shown):
        caption += "Mean of the seeds; the band is one standard deviation. "
    return Plot("Loss curves", to_svg(figure, f"losses{narrow}"), caption + _more(shown, MOST_CURVES))


def throughput(made: Comparison, narrow: bool = False) -> Plot | None:
    """Sequences a second, over all devices and a device."""
    keys = ("sequences_per_second", "sequences_per_second_per_device")
    shown = [system for system in made.systems if any(system.spread(key) for key in keys)][:MOST_BARS]
    if not shown:
        return None
    figure, panels = new_figure(2, 0.9 + 0.36 * len(shown), narrow)
    for axes, key, title in zip(panels, keys, ("all devices", "per device"), strict=True):
        _bars(axes, shown, key)
        axes.set_title(f"sequences/s, {title}")
    panels[1].tick_params(labelleft=narrow)
    caption = "Whiskers: one standard deviation over the seeds; a hatched bar is a single seed. "
    return Plot("Throughput", to_svg(figure, f"throughput{narrow}"), caption + _more(made.systems, MOST_BARS))


def _bars(axes: Axes, shown: Sequence[System], key: str) -> None:
    spreads = [system.spread(key) for system in shown]
    most = max((found.mean + (found.sd or 0.0) for found in spreads if found), default=1.0)
    known = [(place, found) for place, found in enumerate(spreads) if found is not None]
    for alone in (True, False):  # all bars of a kind at once: a call for each takes three times as long
        kind = [(place, found) for place, found in known if (found.sd is None) == alone]
        if kind:
            axes.barh(
                [place for place, _ in kind], [found.mean for _, found in kind], 0.62,
                xerr=None if alone else [found.sd or 0.0 for _, found in kind],
                color="#dbe9f4" if alone else "#6baed6", edgecolor="#2b5d84", hatch="///" if alone else None,
                linewidth=0.8, error_kw={"capsize": 3, "linewidth": 1.1},
            )  # fmt: skip
    for place, found in known:
        axes.text(found.mean + (found.sd or 0.0) + 0.015 * most, place, digits(found.mean), va="center")
    for place in sorted(set(range(len(shown))) - {place for place, _ in known}):
        axes.text(0.01 * most, place, "unknown", va="center", color="#666666")
    axes.set_yticks(range(len(shown)), [shortened(system.name) for system in shown])
    axes.set_xlim(0, 1.18 * most)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(axis="y", visible=False)


def scaling(made: Comparison, narrow: bool = False) -> Plot | None:
    """Rates and efficiency by number of devices."""
    if not made.families:
        return None
    figure, (rates, efficiency) = new_figure(2, 3.4, narrow)
    for number, family in enumerate(made.families[:MOST_CURVES]):
        devices = [point.devices for point in family.points]
        drawn = look(number) | {"marker": MARKERS[number % len(MARKERS)]}
        spreads = [point.sd or 0.0 for point in family.points]
        values = [point.rate for point in family.points]
        rates.errorbar(devices, values, yerr=spreads, capsize=3, label=f"{family.name}, batch {family.batch}", **drawn)
        ideal = family.points[0].rate / family.points[0].devices
        rates.plot(devices, [ideal * count for count in devices], color="#999999", linewidth=0.8, linestyle=":")
        efficiency.plot(devices, [100 * point.efficiency for point in family.points], **drawn)
    ticks = sorted({point.devices for family in made.families for point in family.points})
    for axes in (rates, efficiency):
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel("devices")
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
    rates.set_title("sequences/s (dotted: without loss)")
    efficiency.set_title("efficiency, %")
    below(figure, rates)
    return Plot("Scaling", to_svg(figure, f"scaling{narrow}"), "Against the fewest devices of each kind.")


def scores(made: Comparison, narrow: bool = False) -> Plot | None:
    """The dev set's score by training time and by energy."""
    if made.race is None:
        return None
    metric = made.race.metric
    lines = list(_courses(made, metric))
    by_energy = any(watts for _, _, watts, _ in lines)
    if not any(seconds for _, seconds, _, _ in lines):
        return None
    figure, panels = new_figure(2 if by_energy else 1, 3.4, narrow)
    for number, seconds, watts, values in lines:
        drawn = look(number) | {"marker": MARKERS[number % len(MARKERS)], "markersize": 4, "linewidth": 1.2}
        panels[0].plot(seconds, values, **drawn)
        if by_energy and watts:
            panels[1].plot([watts * one for one in seconds], values, **drawn)
    for axes, title in zip(panels, ("training time (s)", "energy (J)"), strict=False):
        axes.axhline(made.race.target, color="#777777", linewidth=0.8, linestyle="--")
        axes.set_xlabel(title)
        axes.set_ylabel(metric)
        axes.set_xlim(left=0)
    shown = list(dict.fromkeys(number for number, *_ in lines))
    handles = [panels[0].plot([], [], **look(n), marker=MARKERS[n % len(MARKERS)])[0] for n in shown]
    labels = [shortened(made.systems[n].name) for n in shown]
    figure.legend(handles, labels, loc="outside lower center", ncols=legend_columns(labels, figure.get_figwidth()))
    caption = "One line per seed; dashed: the target score. " + (
        "Energy: time at the run's mean power. " if by_energy else ""
    )
    return Plot(f"Time{' and energy' if by_energy else ''} to {metric}", to_svg(figure, f"scores{narrow}"), caption)


def _courses(made: Comparison, metric: str) -> Iterator[tuple[int, list[float], float | None, list[float]]]:
    """(system's number, seconds, watts, scores) of each entry that was evaluated at known times."""
    for number, system in enumerate(made.systems[:MOST_CURVES]):
        for entry in system.entries:
            seen = [(seconds, value) for _, seconds, value in course(entry, metric) if seconds is not None]
            if seen:
                yield number, [seconds for seconds, _ in seen], entry.watts, [value for _, value in seen]


def _more(shown: Sequence[object], most: int) -> str:
    return f"The first {most} of {len(shown)} systems." if len(shown) > most else ""


DRAWN: dict[str, Callable[..., Plot | None]] = {
    "losses": losses, "trade_off": trade_off, "throughput": throughput, "scaling": scaling, "scores": scores,
}  # fmt: skip
