"""What a measurement shows: a table within 100 characters, the rules it was counted by, and what the engines chose.

A suite shows a line for each cell, and how many ended how.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from bertkit.bench.cells import CellOutcome

WIDTH = 120  # at least: cells are never cut or folded; a usual line takes under 100
Cells = Mapping[str, str]  # heading -> cell


def show(made: Mapping[str, Any], stream: TextIO) -> None:
    """The records of `bertkit bench` for the eye; plain text where `stream` is no terminal."""
    console = Console(file=stream, highlight=False, soft_wrap=False)
    console.width = max(console.width, WIDTH)
    records = made["records"]
    rows = [_row(one) for one in records]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 3 else "right", no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*(row.get(heading, "-") for heading in headings))
    console.print(table, markup=False)
    for line in (*_failures(records), *_notes(records), *_engines(records)):
        console.print(line, markup=False, emoji=False, soft_wrap=True)


def _row(one: Mapping[str, Any]) -> Cells:
    case, rates, times = one["case"], one["throughput"], one["time"]
    model = case["model"].rstrip("/").rsplit("/", 1)[-1]
    row = {
        "model": model, "dtype": one["precision"]["name"], "lengths": case["lengths"], "batch": str(case["batch_size"]),
    }  # fmt: skip
    if one["status"] != "measured":
        return row | {"seq/s": one["status"]}
    row["seq/s"] = figure(rates["sequences_per_second"])
    if one["hardware"]["processes"] > 1:
        row["per device"] = figure(rates["sequences_per_second_per_device"])
    row |= {
        "tokens/s": figure(rates["tokens_per_second"]),
        "padding eff.": share(rates["padding_efficiency"]),
        "MFU": share(rates["mfu"]),
    }
    shown = ("p50",) if one["fairness"]["measures"] == "train" else ("p50", "p99")
    steps = times["step_seconds"]
    row |= {f"ms {p}": figure(in_milliseconds(steps[p])) for p in shown}
    memory = one["memory"]["peak_bytes_per_device"]
    mark = "<=" if one["memory"]["at_most"] else ""
    row["GiB"] = "-" if memory is None else mark + figure(memory / 2**30)
    waited, seconds = times["waiting_for_data_seconds"], times["training_seconds"]
    row["wait"] = share(waited / seconds if seconds else None)
    row["n"] = str(rates["counted"]["updates"])
    return row


def figure(value: float | None) -> str:
    """Three digits or more; - where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def in_milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _failures(records: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"{one['status']}: {one['case']['model']}, {one['precision']['name']}, {one['case']['lengths']}, "
        f"batch {one['case']['batch_size']}: {one['reason']}"
        for one in records
        if one["status"] != "measured"
    ]


def _notes(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """The rules; they are the same for all of them."""
    if not records:
        return []
    rules, processes = records[0]["method"]["rules"], records[0]["hardware"]["processes"]
    own = ("training", "update time") if records[0]["fairness"]["measures"] == "train" else ("latency",)
    lines = [f"warm-up: {rules['warm-up']}", rules["filled"], *(f"{name}: {rules[name]}" for name in ("tokens", *own))]
    if processes > 1:
        lines.append(f"{processes} processes, batch on each: {rules['several processes']}")
    return lines + list(dict.fromkeys(_peak(one) for one in records if one["status"] == "measured"))


def _peak(one: Mapping[str, Any]) -> str:
    rates = one["throughput"]
    peak = rates["peak_flops_per_device"]
    return (
        f"MFU, {one['precision']['name']}: of {figure(peak and peak / 1e9)} GFLOP/s per device ({rates['peak_source']})"
    )


def _engines(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the engines chose: once where they agree, with the precision where they do not."""
    engines = [(one["precision"]["name"], one["hardware"]["engine"]) for one in records if one["status"] == "measured"]
    lines: dict[str, list[str]] = {}
    for precision, engine in engines:
        for name, value in engine.items():
            lines.setdefault(f"{name}: {value}", []).append(precision)
    return [
        line if len(found) == len(engines) else f"{', '.join(dict.fromkeys(found))}: {line}"
        for line, found in lines.items()
    ]


# ---- of a suite ----

SUITE_COLUMNS = ("kind", "model", "dtype", "lengths", "cut", "batch", "seq/s", "tokens/s", "ms p50", "ms p99", "GiB")


def show_outcomes(outcomes: Sequence[CellOutcome], stream: TextIO) -> None:
    """The table; plain text where `stream` is no terminal."""
    console = Console(file=stream, highlight=False)
    console.width = max(console.width, WIDTH)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(SUITE_COLUMNS):
        table.add_column(heading, justify="left" if number < 4 else "right", no_wrap=True)
    for outcome in outcomes:
        row = _cell_row(outcome)
        table.add_row(*(row.get(heading, "-") for heading in SUITE_COLUMNS))
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
    return f"{_cell_row(outcome)['seq/s']} sequences/s"


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


def _cell_row(outcome: CellOutcome) -> Cells:
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
