"""What a measurement shows: a table within 100 characters, the rules it was counted by, and what the engines chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

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
        row["a device"] = figure(rates["sequences_per_second_per_device"])
    row |= {
        "tokens/s": figure(rates["tokens_per_second"]),
        "filled": share(rates["padding_efficiency"]),
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
    lines = [f"{name}: {rules[name]}" for name in ("warm-up", "filled", "tokens", *own)]
    if processes > 1:
        lines.append(f"{processes} processes, batch on each: {rules['several processes']}")
    return lines + list(dict.fromkeys(_peak(one) for one in records if one["status"] == "measured"))


def _peak(one: Mapping[str, Any]) -> str:
    rates = one["throughput"]
    peak = rates["peak_flops_per_device"]
    return (
        f"MFU, {one['precision']['name']}: of {figure(peak and peak / 1e9)} GFLOP/s a device ({rates['peak_source']})"
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
