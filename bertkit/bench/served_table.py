"""What `bertkit bench serve` shows, under the column names of Triton's tables: how fast, and where the time went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from bertkit.bench.table import figure, in_milliseconds

WIDTH = 150  # at least: cells are never cut
Cells = Mapping[str, str]
# heading -> key of the record's part on serving: where a request's time goes, by Triton's names
WHERE = {
    "Client Send (ms)": "client_send_ms",
    "Network+Server Send/Recv (ms)": "network_ms",
    "Server Queue (ms)": "server_queue_ms",
    "Server Compute Input (ms)": "server_compute_input_ms",
    "Server Compute Infer (ms)": "server_compute_infer_ms",
    "Server Compute Output (ms)": "server_compute_output_ms",
    "Client Recv (ms)": "client_receive_ms",
    "Sequences/Batch": "server_sequences_per_batch",
}


def show_served(records: Sequence[Mapping[str, Any]], stream: TextIO) -> None:
    """Both tables, what failed, and the rules; plain text where `stream` is no terminal."""
    console = Console(file=stream, highlight=False)
    console.width = max(console.width, WIDTH)
    _print(console, [_speed(one) for one in records])
    console.print()
    _print(console, [_where(one) for one in records if one["status"] == "measured"])
    for line in (*_failures(records), *_late(records), *_rules(records)):
        console.print(line, markup=False, emoji=False, soft_wrap=True)


def _print(console: Console, rows: Sequence[Cells]) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    if not rows:
        return
    headings = list(dict.fromkeys(heading for row in rows for heading in row))
    for heading in headings:
        width = max(_widest(heading), *(len(row.get(heading, "-")) for row in rows))
        table.add_column(heading, justify="left" if heading == "Lengths" else "right", width=width)
    for row in rows:
        table.add_row(*(row.get(heading, "-") for heading in headings))
    console.print(table, markup=False)


def _widest(heading: str) -> int:
    """Characters of its longest word: a heading is folded between words only."""
    return max(map(len, heading.split()))


def _load(one: Mapping[str, Any]) -> dict[str, str]:
    config = one["config"]
    row = {"Lengths": one["case"]["lengths"], "Batch": str(one["case"]["batch_size"])}
    if config["request_rate"] is not None:
        return row | {"Requests due/s": f"{config['request_rate']:g}"}
    return row | {"Concurrency": str(config["concurrency"])}


def _speed(one: Mapping[str, Any]) -> Cells:
    row = _load(one)
    if one["status"] != "measured":
        return row | {"Inferences/Second": one["status"]}
    rates, steps, serving = one["throughput"], one["time"]["step_seconds"], one["callbacks"]["serving"]
    row |= {
        "Inferences/Second": figure(rates["sequences_per_second"]),
        "Tokens/Second": figure(rates["tokens_per_second"]),
    }
    row |= {f"{p} latency (ms)": figure(in_milliseconds(steps[p])) for p in ("p50", "p90", "p95", "p99")}
    return row | {
        "avg latency (ms)": figure(serving["latency_mean_ms"]),
        "Requests": f"{serving['requests']:,}",
        "Errors": f"{sum(serving['errors'].values()):,}",
    }


def _where(one: Mapping[str, Any]) -> Cells:
    serving = one["callbacks"]["serving"]
    return _load(one) | {heading: figure(serving[key]) for heading, key in WHERE.items()}


def _failures(records: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for one in records:
        errors = one["callbacks"].get("serving", {}).get("errors", {})
        case = ", ".join(_load(one).values())
        if one["status"] != "measured":
            lines.append(f"{one['status']}: {case}: {one['reason']}")
        elif errors:
            lines.append(f"errors: {case}: " + ", ".join(f"{count} x {name}" for name, count in errors.items()))
    return lines


def _late(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """In an open loop: how late the client itself was, which is in the latencies."""
    late = [one["callbacks"].get("serving", {}).get("client_late_p99_ms") for one in records]
    known = [one for one in late if one is not None]
    return [f"the client sent 99 of 100 requests within {figure(max(known))} ms after they were due"] if known else []


def _rules(records: Sequence[Mapping[str, Any]]) -> list[str]:
    if not records:
        return []
    rules = records[0]["method"]["rules"]
    return [f"{name}: {rules[name]}" for name in ("warm-up", "latency", "rate", "errors", "server", "client")]
