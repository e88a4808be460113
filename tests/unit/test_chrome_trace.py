"""A Chrome trace as chrome://tracing and Perfetto read it."""

from __future__ import annotations

import json
from pathlib import Path

from bertkit.engine.chrome_trace import TraceLine, TraceSpan, write_chrome_trace


def test_processes_threads_and_times(tmp_path: Path) -> None:
    lines = [
        TraceLine("host", "main", [TraceSpan("step", 1000.5, 20.0, {"update": 3}), TraceSpan("wait", 1010.0, 0.0)]),
        TraceLine("device", "stream 1", [TraceSpan("matmul", 1002.0, 1.25)]),
        TraceLine("host", "worker", []),
    ]
    write_chrome_trace(tmp_path / "trace.json", lines)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [(one["name"], one["pid"], one["tid"], one["args"]["name"]) for one in events if one["ph"] == "M"]
    assert names == [
        ("process_name", 1, 0, "host"), ("process_name", 2, 0, "device"), ("thread_name", 1, 1, "main"),
        ("thread_name", 2, 2, "stream 1"), ("thread_name", 1, 3, "worker"),
    ]  # fmt: skip
    spans = [event for event in events if event["ph"] == "X"]
    assert [(one["name"], one["pid"], one["tid"], one["ts"], one["dur"]) for one in spans] == [
        ("step", 1, 1, 0.0, 20.0), ("wait", 1, 1, 9.5, 0.0), ("matmul", 2, 2, 1.5, 1.25),
    ]  # fmt: skip
    assert [one.get("args") for one in spans] == [{"update": 3}, None, None]


def test_nothing_recorded_is_an_empty_trace(tmp_path: Path) -> None:
    write_chrome_trace(tmp_path / "trace.json", [])
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"] == []
