"""What the parts of `on_hardware.py` found: one part's outcome from what it left, and the summary of all.

Pure: files are read by the caller.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from hardware_plan import Kind, Part

SCHEMA = 1
Outcome = Literal["passed", "failed", "skipped", "measured", "does not fit", "timed out", "interrupted"]
TRACEBACK = re.compile(r"the traceback is in (\S+\.txt)")  # what `bertkit` prints after an unexpected error
BAD: tuple[Outcome, ...] = ("failed", "timed out")
COLUMNS = ("case", "batch", "sequences/s", "smallest to largest", "tokens/s", "MFU", "ms p50", "GiB")


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a part ended."""

    name: str
    kind: Kind
    outcome: Outcome
    detail: str
    seconds: float = 0.0
    command: tuple[str, ...] = ()  # the last one
    figures: Mapping[str, Any] = field(default_factory=dict)


def judge(kind: Kind, code: int, left: Mapping[str, Any] | None, log: str) -> tuple[Outcome, str, dict[str, Any]]:
    """(outcome, detail, figures) of a process that ended by itself, by the JSON file that it left, if it did.

    `log`: what it printed.
    """
    if left is not None and kind == "check" and left.get("results"):
        result = left["results"][0]
        return result["outcome"], result["detail"], {"settings": left["settings"], "engine": left["engine"]}
    if left is not None and kind in ("trial", "profile"):
        return left["outcome"], left["detail"], left["figures"]
    if left is not None and kind == "speed" and left["records"]:
        return _speed(left["records"], code, log)
    if left is not None and kind == "facts" and code == 0:
        hung = [name for name, became in left["tools"].items() if became.startswith("did not end")]
        note = f"; did not end: {', '.join(hung)}" if hung else ""
        return "passed", f"{len(left['packages'])} packages, {len(left['tools'])} tools{note}", {}
    return "failed", last_line(log) or f"exit code {code}", {"exit_code": code}


def last_line(log: str) -> str:
    """The last that says something: where an unexpected error's traceback lies does not."""
    lines = (line.strip() for line in reversed(log.splitlines()) if not TRACEBACK.search(line))
    return next((line for line in lines if line), "")


def _speed(records: Sequence[Mapping[str, Any]], code: int, log: str) -> tuple[Outcome, str, dict[str, Any]]:
    """Of the same case several times."""
    measured = [one for one in records if one["status"] == "measured"]
    figures = speed_figures(measured) | {"batch": records[0]["case"]["batch_size"]}
    other = next((one for one in records if one["status"] != "measured"), None)
    if other is not None and other["status"] == "does not fit":
        return "does not fit", other["reason"], figures
    if code or not measured:
        ended = f"after {len(measured)} of its measurements: " if measured else ""
        return "failed", ended + (last_line(log) or f"exit code {code}"), figures
    return "measured", f"{figures['sequences_per_second']['median']:,.1f} sequences/s", figures


def speed_figures(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median, smallest and largest of what the records measured; a figure that one does not have is null."""
    places = {
        "sequences_per_second": ("throughput", "sequences_per_second"),
        "tokens_per_second": ("throughput", "tokens_per_second"),
        "padding_efficiency": ("throughput", "padding_efficiency"),
        "mfu": ("throughput", "mfu"),
        "peak_bytes": ("memory", "peak_bytes_per_device"),
    }
    found: dict[str, Any] = {name: spread([one[a][b] for one in measured]) for name, (a, b) in places.items()}
    found["step_seconds_p50"] = spread([one["time"]["step_seconds"]["p50"] for one in measured])
    if measured:
        found |= {"precision": measured[0]["precision"]["name"], "engine": measured[0]["hardware"]["engine"]}
    return found


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"median": statistics.median(known), "min": min(known), "max": max(known), "count": len(known)}


# ---- the summary ----


def summary(
    about: Mapping[str, Any], results: Sequence[Result], left_out: Sequence[tuple[Part, str]]
) -> dict[str, Any]:
    """All of it as JSON. `about`: backend, size, times, and how the call ended; `left_out`: parts and why."""
    names = [part.name for part, _ in left_out]
    counts = Counter(result.outcome for result in results) + Counter({"left out": len(names)} if names else {})
    return {
        "schema": SCHEMA,
        "kind": "on-hardware",
        **about,
        "counts": dict(counts),
        "parts": [
            {
                "name": one.name, "kind": one.kind, "outcome": one.outcome, "detail": one.detail,
                "seconds": round(one.seconds, 2), "command": list(one.command), "figures": dict(one.figures),
            }
            for one in results
        ],
        "left_out": [{"name": part.name, "reason": reason} for part, reason in left_out],
    }  # fmt: skip


def show(made: Mapping[str, Any]) -> str:
    """The summary for the eye."""
    lines = [
        f"bertkit on {made['backend']['name']}: {made['backend']['detail']}",
        f"{made['started']}, {made['size']}, {made['seconds'] / 60:.1f} of {made['minutes']:g} min; {made['ended']}",
        ", ".join(f"{number} {outcome}" for outcome, number in made["counts"].items()),
    ]
    speed = [part for part in made["parts"] if part["kind"] == "speed"]
    others = [part for part in made["parts"] if part["kind"] != "speed"]
    if others:
        rows = _columns([[part["name"], part["outcome"], f"{part['seconds']:.1f} s"] for part in others])
        lines += ["", *(f"{row}  {part['detail']}" for row, part in zip(rows, others, strict=True))]
    if speed:
        lines += ["", *_columns([list(COLUMNS), *map(_row, speed)])]
        missing = [part for part in speed if part["outcome"] != "measured"]
        lines += [f"{part['name']}: {part['outcome']}: {part['detail']}" for part in missing]
    for reason in dict.fromkeys(entry["reason"] for entry in made["left_out"]):
        names = [entry["name"] for entry in made["left_out"] if entry["reason"] == reason]
        lines += ["", f"left out, {reason}: {', '.join(names)}"]
    return "\n".join(lines) + "\n"


def _row(part: Mapping[str, Any]) -> list[str]:
    found = part["figures"]
    rate = found.get("sequences_per_second")
    between = f"{_figure(rate['min'])} to {_figure(rate['max'])}" if rate else "-"
    return [
        part["name"].removeprefix("speed."),
        str(found.get("batch", "-")),
        _figure(_median(found, "sequences_per_second")) if rate else part["outcome"],
        between,
        _figure(_median(found, "tokens_per_second")),
        _figure(_median(found, "mfu"), 100, " %"),
        _figure(_median(found, "step_seconds_p50"), 1000),
        _figure(_median(found, "peak_bytes"), 1 / 2**30),
    ]


def _median(figures: Mapping[str, Any], name: str) -> float | None:
    found = figures.get(name)
    return found["median"] if found else None


def _figure(value: float | None, times: float = 1.0, unit: str = "") -> str:
    """Three digits or more; - where it is not known."""
    if value is None:
        return "-"
    value *= times
    return (f"{value:,.0f}" if value >= 100 else f"{value:.3g}") + unit


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns; the first begins at the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = [cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()
