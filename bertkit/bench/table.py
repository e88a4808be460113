"""What a measurement shows: a table within 100 characters, the rules it was counted by, and what the engines chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

WIDTH = 120  # at least: cells are never cut or folded; a usual line takes under 100
Cells = Mapping[str, str]  # heading -> cell


def show(made: Mapping[str, Any], stream: TextIO) -> None:
    """The record of `bertkit bench` for the eye; plain text where `stream` is no terminal."""
    console = Console(file=stream, highlight=False, soft_wrap=False)
    console.width = max(console.width, WIDTH)
    rows = [_row(case, made) for case in made["cases"]]
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 3 else "right", no_wrap=number > 0, overflow="fold")
    for row in rows:
        table.add_row(*(row.get(heading, "-") for heading in headings))
    console.print(table, markup=False)
    for line in (*_failures(made["cases"]), *_notes(made), *_engines(made["cases"])):
        console.print(line, markup=False, emoji=False, soft_wrap=True)


def _row(case: Mapping[str, Any], made: Mapping[str, Any]) -> Cells:
    model = case["model"].rstrip("/").rsplit("/", 1)[-1]
    row = {"model": model, "dtype": case["precision"], "lengths": case["lengths"], "batch": str(case["batch_size"])}
    if case["status"] != "measured":
        return row | {"seq/s": case["status"]}
    rates = case["throughput"]
    row["seq/s"] = figure(rates["sequences_per_second"])
    if made["hardware"]["processes"] > 1:
        row["a device"] = figure(rates["sequences_per_second_per_device"])
    row |= {
        "tokens/s": figure(rates["tokens_per_second"]),
        "filled": share(rates["padding_efficiency"]),
        "MFU": share(rates["mfu"]),
    }
    if made["kind"] == "bench-train":
        row["ms p50"] = figure(case["update_milliseconds"]["p50"])
    else:
        row |= {f"ms {p}": figure(case["latency_milliseconds"][p]) for p in ("p50", "p99")}
    memory = case["peak_memory_bytes"]
    mark = "<=" if case["peak_memory_at_most"] else ""
    row["GiB"] = "-" if memory is None else mark + figure(memory / 2**30)
    row["wait"] = share(case["waiting_for_data_share"])
    row["n"] = str(rates["counted"]["updates"])
    return row


def figure(value: float | None) -> str:
    """Three digits or more; - where it is not known."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"


def share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _failures(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"failed: {case['model']}, {case['precision']}, {case['lengths']}, batch {case['batch_size']}: {case['reason']}"
        for case in cases
        if case["status"] != "measured"
    ]


def _notes(made: Mapping[str, Any]) -> list[str]:
    rules, processes = made["rules"], made["hardware"]["processes"]
    own = ("training", "update time") if made["kind"] == "bench-train" else ("latency",)
    lines = [f"{name}: {rules[name]}" for name in ("warm-up", "filled", "tokens", *own)]
    if processes > 1:
        lines.append(f"{processes} processes, batch on each: {rules['several processes']}")
    return lines + list(dict.fromkeys(_peak(case) for case in made["cases"] if case["status"] == "measured"))


def _peak(case: Mapping[str, Any]) -> str:
    rates = case["throughput"]
    peak = rates["peak_flops_per_device"]
    return f"MFU, {case['precision']}: of {figure(peak and peak / 1e9)} GFLOP/s a device ({rates['peak_source']})"


def _engines(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    """What the engines chose: once where they agree, with the precision where they do not."""
    engines = [(case["precision"], case["engine"]) for case in cases if case["status"] == "measured"]
    lines: dict[str, list[str]] = {}
    for precision, engine in engines:
        for name, value in engine.items():
            lines.setdefault(f"{name}: {value}", []).append(precision)
    return [
        line if len(found) == len(engines) else f"{', '.join(dict.fromkeys(found))}: {line}"
        for line, found in lines.items()
    ]
