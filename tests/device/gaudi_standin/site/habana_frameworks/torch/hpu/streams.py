"""Streams and events. Nothing is asynchronous here, so a stream is a name and an event a time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from habana_frameworks import _sim


class Event:
    def __init__(self, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> None:
        self.enable_timing = enable_timing
        self.at: float | None = None

    def record(self, stream: Any = None) -> None:
        self.at = time.perf_counter()

    def query(self) -> bool:
        return True

    def wait(self, stream: Any = None) -> None:
        return None

    def synchronize(self) -> None:
        _sim.C.host_waits("event")

    def elapsed_time(self, end: Event) -> float:
        """Milliseconds between the records of two events that keep time."""
        if not (self.enable_timing and end.enable_timing) or self.at is None or end.at is None:
            raise RuntimeError("both events must be recorded with enable_timing=True")
        return (end.at - self.at) * 1e3


class Stream:
    def __init__(self, device: Any = None, priority: int = 0, **more: Any) -> None:
        self.priority = priority

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _sim.C.host_waits("stream")

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        return None

    def wait_stream(self, stream: Stream) -> None:
        return None


_default = Stream()
_current = _default


def default_stream(device: Any = None) -> Stream:
    return _default


def current_stream(device: Any = None) -> Stream:
    return _current


def set_stream(stream: Stream) -> None:
    global _current
    _current = stream


@contextlib.contextmanager
def stream(stream: Stream | None) -> Iterator[None]:
    before = current_stream()
    set_stream(stream or before)
    try:
        yield
    finally:
        set_stream(before)
