"""What a suite shows in the end: a line for each cell, and how many ended how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from bertkit.bench.cells import CellOutcome
from bertkit.bench.table import WIDTH, Cells, figure, in_milliseconds

COLUMNS = ("kind", "model", "dtype", "lengths", "cut", "batch", "seq/s", "tokens/s", "ms p50", "ms p99", "GiB")


def show_outcomes(outcomes: Sequence[CellOutcome], stream: TextIO) -> None:
    """The table; plain text where `stream` is no terminal."""
    console = Console(file=stream, highlight=False)
    console.width = max(console.width, WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(COLUMNS):
        table.add_column(heading, justify="left" if number < 4 else "right", no_wrap=True)
    for outcome in outcomes:
        row = _row(outcome)
        table.add_row(*(row.get(heading, "-") for heading in COLUMNS))
    console.print(table, markup=False)
    for outcome in outcomes:
        if outcome.reason:
            console.print(f"{outcome.cell.name}: {outcome.status}: {outcome.reason}", markup=False, soft_wrap=True)
    console.print(total(outcomes), markup=False, soft_wrap=True)


def total(outcomes: Sequence[CellOutcome]) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    return f"{len(outcomes)} cells: " + ", ".join(f"{number} {status}" for status, number in counts.items())


def brief(outcome: CellOutcome) -> str:
    """How a cell ended, in a few words."""
    if outcome.status != "measured":
        return outcome.status
    return f"{_row(outcome)['seq/s']} sequences/s"


def summary(outcomes: Sequence[CellOutcome]) -> list[dict[str, Any]]:
    """The same for programs: a cell's settings, how it ended, and its record."""
    return [
        {
            "name": outcome.cell.name,
            "kind": outcome.cell.kind,
            "model": outcome.cell.model,
            "precision": outcome.cell.precision,
            "lengths": outcome.cell.lengths,
            "cut_to": outcome.cell.cut,
            "batch_size": outcome.cell.batch,
            "status": outcome.status,
            "reason": outcome.reason or None,
            "record": outcome.record,
        }
        for outcome in outcomes
    ]


def _row(outcome: CellOutcome) -> Cells:
    cell, made = outcome.cell, outcome.record
    row = {
        "kind": cell.kind,
        "model": cell.model.rstrip("/").rsplit("/", 1)[-1],
        "dtype": cell.precision,
        "lengths": cell.lengths,
        "cut": str(cell.cut),
        "batch": str(cell.batch),
        "seq/s": outcome.status,
    }
    if outcome.status != "measured" or made is None:
        return row
    rates, steps, memory = made["throughput"], made["time"]["step_seconds"], made["memory"]["peak_bytes_per_device"]
    mark = "<=" if made["memory"]["at_most"] else ""
    return row | {
        "seq/s": figure(rates["sequences_per_second"]),
        "tokens/s": figure(rates["tokens_per_second"]),
        "ms p50": figure(in_milliseconds(steps["p50"])),
        "ms p99": figure(in_milliseconds(steps["p99"])),
        "GiB": "-" if memory is None else mark + figure(memory / 2**30),
    }
