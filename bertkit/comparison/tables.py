"""The comparison as small tables of text, in the order in which they are read: what differs, results, speed, time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.figures import (
    GAP,
    LAST_LOSS,
    METRIC,
    PARAMETERS,
    PER_EXAMPLE,
    Figure,
    Spread,
    Topic,
    as_ratio,
    digits,
    with_spread,
)
from bertkit.comparison.systems import RECENT, System
from bertkit.comparison.trade_off import TradeOff, notes
from bertkit.comparison.vs_published import Beside

Row = tuple[str, ...]
JOIN = " · "  # between the sentences of a cell


@dataclass(frozen=True)
class Table:
    """The first column names the row; the others are figures."""

    title: str
    headings: Row
    rows: Sequence[Row]
    notes: Sequence[str] = ()
    words: int = 1  # columns at the left that hold words
    prose: bool = False  # whether the last column is a sentence


def all_tables(made: Comparison) -> list[Table]:
    """Those that have a row with something in it."""
    found = [
        what(made), results(made), score_and_costs(made.trade_off), topic(made, "speed", "Speed"),
        topic(made, "time", "Time, memory, energy"), scaling(made), reaching(made), published(made),
    ]  # fmt: skip
    return [table for table in found if any(cell not in (GAP, "") for row in table.rows for cell in row[1:])]


def what(made: Comparison) -> Table:
    """What each system is."""
    headings: Row = ("system", "backend", "device", "precision", "model", "task", "batch", "length", "seeds")
    rows = [_what(system, system is made.baseline) for system in made.systems]
    if PARAMETERS in made.figures:
        headings = (*headings, "parameters (million)")
        rows = [(*row, _size(made.spread(system, PARAMETERS))) for row, system in zip(rows, made.systems, strict=True)]
    return Table("Systems", headings, rows, words=6)


def _size(found: Spread | None) -> str:
    return GAP if found is None else digits(found.mean)


def _what(system: System, is_baseline: bool) -> Row:
    place = system.place
    count = f"{place.devices}x " if place.devices and place.devices > 1 else ""
    device = f"{count}{place.device}" if place.device else f"{count}?" if count else GAP
    if place.hosts and place.hosts > 1:
        device += f", {place.hosts} hosts"
    known = (place.backend, device, place.precision, place.model, place.task, place.batch, place.length)
    cells = (GAP if part is None else str(part) for part in known)
    return (system.name + (" (baseline)" if is_baseline else ""), *cells, _seeds(system))


def _seeds(system: System) -> str:
    """Which, where that is short."""
    seeds = [str(entry.seed) for entry in system.entries if entry.seed is not None]
    if system.seeds == len(seeds) <= 3:
        return ", ".join(f"#{seed}" for seed in seeds)
    return f"{system.seeds} seeds" if system.seeds > 1 else "1 seed"


def results(made: Comparison) -> Table:
    """Scores with their spread over seeds, and how far from the baseline."""
    figures = [one for one in made.figures if one.topic == "result"]
    if not figures:
        return Table("", (), [])
    headings: list[str] = ["system", "n"]
    for figure in figures:
        headings += [figure.heading, "Δ"] if _has_delta(made, figure) else [figure.heading]
    rows = [(system.name, str(system.seeds), *_scores(made, system, figures)) for system in made.systems]
    notes = [f"{LAST_LOSS.heading}: mean of the last {RECENT} updates"] if LAST_LOSS in figures else []
    alone = [system.name for system in made.systems if system.seeds == 1]
    if len(alone) < len(made.systems):
        notes.insert(0, "mean ± standard deviation over n seeds; ≈: difference within one standard deviation of each")
    if alone:
        notes.insert(0, "n = 1: a single seed has no spread, and another seed may change the order")
    return Table("Results", tuple(headings), rows, notes)


def _scores(made: Comparison, system: System, figures: Sequence[Figure]) -> list[str]:
    cells: list[str] = []
    for figure in figures:
        found = system.spread(figure.key)
        cells.append(_of_seeds(found, system.seeds, 4))
        if _has_delta(made, figure):
            apart = made.against(system, figure)
            near = "≈" if apart and apart.within_spread else ""
            cells.append(GAP if apart is None else f"{near}{apart.difference:+.4f}")
    return cells


def _has_delta(made: Comparison, figure: Figure) -> bool:
    has_base = made.spread(made.baseline, figure) is not None
    return figure.key.startswith(METRIC) and len(made.systems) > 1 and has_base


def _of_seeds(found: Spread | None, seeds: int, decimals: int) -> str:
    """The figure, and of how many seeds where not all have it."""
    text = with_spread(found, decimals)
    return text if found is None or found.n == seeds else f"{text} (n = {found.n})"


def score_and_costs(found: TradeOff | None) -> Table:
    """Systems beside the teachers of the distilled ones."""
    if found is None:
        return Table("", (), [])
    headings = ("system", found.metric, "parameters (million)", "time per example (ms)", "not beaten")
    rows = [
        (one.name, with_spread(one.score, 4), _size(one.parameters), with_spread(one.latency), _unbeaten(found, at))
        for at, one in enumerate(found.contenders)
    ]
    told = [
        "not beaten: no other has as good a score at less, or a better one at as much",
        "time per example: inference on the dev set in batches, over its examples; not the latency of one request",
    ]
    return Table(f"Score, size and latency: {found.metric}", headings, rows, [*told, *notes(found)])


def _unbeaten(found: TradeOff, at: int) -> str:
    words = {PARAMETERS.key: "by size", PER_EXAMPLE.key: "by latency"}
    return ", ".join(words[front.cost] for front in found.fronts if at in front.members) or GAP


def topic(made: Comparison, name: Topic, title: str) -> Table:
    """All figures of one topic; those with a ratio have it beside them."""
    alone = all(system.place.devices == 1 for system in made.systems)
    figures = [one for one in made.figures if one.topic == name and not (alone and one.key.endswith("_per_device"))]
    several = len(made.systems) > 1
    headings = ["system"]
    for figure in figures:
        unit = f" ({figure.unit})" if figure.unit not in ("", "1/s") else ""
        headings += [figure.heading + unit] + (["×"] if figure.ratio and several else [])
    rows = [(system.name, *_cells(made, system, figures)) for system in made.systems]
    notes = _notes(name, figures, several)
    if any(one.key.startswith("step_") for one in figures):
        of = dict.fromkeys(entry.step_of for system in made.systems for entry in system.entries if entry.step_of)
        notes = [f"step: {'; '.join(of)}", *notes] if of else notes
    return Table(title, tuple(headings), rows, notes)


def _cells(made: Comparison, system: System, figures: Sequence[Figure]) -> list[str]:
    cells: list[str] = []
    for figure in figures:
        found = system.spread(figure.key)
        cells.append(with_spread(found if figure.spread or found is None else Spread(found.mean, None, found.n)))
        if figure.ratio and len(made.systems) > 1:
            cells.append("1" if system is made.baseline else as_ratio(made.against(system, figure)))
    return cells


def _notes(name: Topic, figures: Sequence[Figure], several: bool) -> list[str]:
    if name == "speed" and figures:
        ratio = ["×: relative to the baseline; ≈: difference within one standard deviation of each"] if several else []
        return ["without padding, over all devices and per device; whole run: pauses included", *ratio]
    if name == "time" and figures:
        told = ["data: time waiting for input; memory: peak per device; energy: during the measurement"]
        if PER_EXAMPLE in figures:
            told.append("dev set: inference in batches, at the last evaluation")
        return told
    return []


def scaling(made: Comparison) -> Table:
    """Rates of systems that differ in the number of devices."""
    rows, notes = [], []
    for family in made.families:
        for point in family.points:
            rate = with_spread(Spread(point.rate, point.sd, 1))
            rows.append(
                (point.system, str(point.devices), rate, digits(point.rate / point.devices), f"{point.efficiency:.0%}")
            )
        notes.append(f"{family.name}: batch {family.batch}")
    headings = ("system", "devices", "sequences/s", "per device", "efficiency")
    return Table("Scaling", headings, rows, notes)


def reaching(made: Comparison) -> Table:
    """Updates, time and energy to a target score."""
    if made.race is None:
        return Table("", (), [])
    headings = ("system", "seeds reached", "updates", "training (s)", "energy (J)")
    rows = [
        (
            one.system,
            f"{one.reached} of {one.of}",
            *(with_spread(found) for found in (one.updates, one.seconds, one.joules)),
        )
        for one in made.race.systems
    ]
    rows = [row if row[1] != "0 of 0" else (row[0], GAP, *row[2:]) for row in rows]
    why = "as given" if made.race.asked else "the best score that every run reached"
    notes = [f"at the first evaluation that reached the target ({why}); energy: at the run's mean power"]
    return Table(f"Time to accuracy: {made.race.metric} {made.race.target:.4f}", headings, rows, notes)


def published(made: Comparison) -> Table:
    """Published figures beside the baseline's, each with why the two do not compare."""
    rows = [_published(one) for one in made.published]
    headings = ("machine", "setting", "figure", "published", "baseline", "×", "not comparable")
    sources = dict.fromkeys(one.theirs.source for one in made.published)
    notes = [
        "rates are per device; ×: baseline over published, for the same task, model and length",
        *(f"source: {source}" for source in sources),
    ]
    return Table("Published figures", headings, rows, notes, words=3, prose=True)


def _published(one: Beside) -> Row:
    theirs = one.theirs
    parts = (theirs.task, theirs.model, theirs.seq_length, theirs.batch and f"b{theirs.batch}", theirs.precision)
    setting = " ".join(str(part) for part in (*parts, theirs.detail) if part)
    figure = f"{theirs.metric.replace('_', ' ')} ({theirs.unit}{', per device' if one.per_device else ''})"
    spread = Spread(one.value, None if one.per_device else theirs.deviation, theirs.runs or 1)
    mine = GAP if one.mine is None else digits(one.mine)
    ratio = GAP if one.ratio is None else f"{one.ratio:.2f}×"
    return (
        theirs.machine or theirs.system.title,
        setting,
        figure,
        with_spread(spread),
        mine,
        ratio,
        JOIN.join(one.differs),
    )
