"""A profile as a Chrome trace, for engines whose profiler writes another form: chrome://tracing and Perfetto read it.

The format: "Trace Event Format", Google 2016; complete events ("X") and the names of processes and threads ("M").
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bertkit.files.disk import to_json, write_text


@dataclass(frozen=True)
class TraceSpan:
    """Something that took a while."""

    name: str
    start: float  # microseconds since some moment that all spans of a trace share
    duration: float  # microseconds
    details: Mapping[str, str | int | float | bool] = field(default_factory=dict)  # shown when it is selected


@dataclass(frozen=True)
class TraceLine:
    """What one thread, or one queue of a device, did."""

    process: str  # the host, or a device: lines of one name are shown together
    thread: str
    spans: Iterable[TraceSpan]


def write_chrome_trace(path: Path, lines: Iterable[TraceLine]) -> None:
    """Write the trace; times are counted from its first span. Raises UserError where the file cannot be written."""
    kept = [(line.process, line.thread, list(line.spans)) for line in lines]
    origin = min((span.start for *_, spans in kept for span in spans), default=0.0)
    processes = {name: number for number, name in enumerate(dict.fromkeys(process for process, *_ in kept), 1)}
    events = [_name("process_name", number, 0, name) for name, number in processes.items()]
    for number, (process, thread, spans) in zip(itertools.count(1), kept, strict=False):
        events.append(_name("thread_name", processes[process], number, thread))
        events.extend(_spans(processes[process], number, spans, origin))
    write_text(path, to_json({"displayTimeUnit": "ms", "traceEvents": events}) + "\n")


def _name(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _spans(process: int, thread: int, spans: Iterable[TraceSpan], origin: float) -> Iterator[dict[str, Any]]:
    for span in spans:
        times = {"ts": round(span.start - origin, 3), "dur": round(span.duration, 3)}  # to the nanosecond
        event = {"ph": "X", "name": span.name, "pid": process, "tid": thread, **times}
        yield event | ({"args": dict(span.details)} if span.details else {})
