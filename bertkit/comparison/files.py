"""The comparison for programs: everything as JSON, and one row a figure as CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
from typing import Any

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.figures import METRIC, Figure
from bertkit.comparison.systems import System

SCHEMA = 1
COLUMNS = (
    "system", "figure", "unit", "mean", "standard_deviation", "n", "ratio", "difference", "within_spread", "note",
)  # fmt: skip


def to_mapping(made: Comparison) -> dict[str, Any]:
    """Unrounded; null is a gap."""
    return {
        "schema": SCHEMA,
        "kind": "comparison",
        "baseline": made.baseline.name,
        "differences": [dataclasses.asdict(one) for one in made.differences],
        "marks": list(made.marks),
        "left_out": list(made.left_out),
        "systems": [_system(made, system) for system in made.systems],
        "scaling": [dataclasses.asdict(family) for family in made.families],
        "published": [dataclasses.asdict(one) for one in made.published],
        "to_score": dataclasses.asdict(made.race) if made.race else None,
        "trade_off": dataclasses.asdict(made.trade_off) if made.trade_off else None,
    }


def _system(made: Comparison, system: System) -> dict[str, Any]:
    return {
        "name": system.name,
        **dataclasses.asdict(system.place),
        "records": [entry.name for entry in system.entries],
        "seeds": [entry.seed for entry in system.entries],
        "n": system.seeds,
        "figures": {figure.key: _figure(made, system, figure) for figure in made.figures},
    }


def _figure(made: Comparison, system: System, figure: Figure) -> dict[str, Any] | None:
    found, apart = system.spread(figure.key), made.against(system, figure)
    if found is None:
        return None
    return {
        "unit": _unit(system, figure),
        "mean": found.mean,
        "standard_deviation": found.sd,
        "n": found.n,
        "ratio": apart.ratio if apart else None,
        "difference": apart.difference if apart else None,
        "within_spread": apart.within_spread if apart else None,
    }


def to_csv(made: Comparison) -> str:
    """A row for each system and figure; an empty cell is a gap."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for system in made.systems:
        for figure in made.figures:
            found = _figure(made, system, figure) or {}
            row = _text(system.name), figure.key, _unit(system, figure)
            table.writerow([*row, *(found.get(name) for name in COLUMNS[3:])])
    for one in made.published:
        theirs = one.theirs
        known: dict[str, Any] = {"mean": theirs.value, "standard_deviation": theirs.deviation, "n": theirs.runs}
        known["note"] = "; ".join([theirs.source, *one.differs])
        table.writerow(
            [f"published: {theirs.machine}", theirs.metric, theirs.unit, *(known.get(name) for name in COLUMNS[3:])]
        )
    return text.getvalue()


def _unit(system: System, figure: Figure) -> str:
    """The figure's own, or what the record calls a metric's."""
    return figure.unit or system.entries[0].units.get(figure.key.removeprefix(METRIC), "")


def _text(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in "=+-@\t\r" else name
