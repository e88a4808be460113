"""The run's log: JSON objects, one a line, written as the run goes and read back by anyone."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_atomically
from bertkit.files.inputs import exists, read_bytes
from bertkit.records.loggers import Follower

FILE = "log.jsonl"
logger = logging.getLogger(__name__)


class RunLog:
    """Appends events to `log.jsonl`. Each line is whole on disk once `write` returns, save for a power cut."""

    def __init__(self, folder: Path | None, followers: Sequence[Follower] = ()) -> None:
        self.path = folder / FILE if folder else None
        self.followers = followers

    def tell(self, event: str, **values: Any) -> None:
        """An event for those who follow, which has no line of its own."""
        for follower in self.followers:
            follower.write(event, time.time(), values)

    def write(self, event: str, **values: Any) -> None:
        if self.path is None:
            return
        self.tell(event, **values)
        line = to_json({"event": event, "time": round(time.time(), 3), **values})
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written: {error.strerror}", "free some space") from None

    def cut_after(self, step: int) -> None:
        """Forget what a resumed run will do again: events of later steps, and a last line that a crash cut off.

        Other lines that are damaged are left out with a warning; no line keeps a run from going on.
        """
        if self.path is None or not exists(self.path):
            return
        kept, damaged = [], []
        lines = list(_lines(self.path))
        for number, line in enumerate(lines, 1):
            entry = _event(line)
            if entry is not None and entry.get("step", 0) <= step:
                kept.append(line)
            elif entry is None and line.strip() and number < len(lines):
                damaged.append(number)
        if damaged:
            places = ", ".join(map(str, damaged[:3])) + (", …" if len(damaged) > 3 else "")
            logger.warning("%s: damaged lines are skipped: %d (line %s)", self.path, len(damaged), places)
        write_atomically(self.path, lambda temporary: temporary.write_bytes(b"".join(line + b"\n" for line in kept)))


def read_log(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a log; a line that is not whole is passed over. Raises UserError where it cannot be read."""
    for line in _lines(path):
        entry = _event(line)
        if entry is not None:
            yield entry


def _lines(path: Path) -> Iterator[bytes]:
    """All lines without their ends; the last one is what a crash cut off, or empty."""
    yield from read_bytes(path, "move it away", most=None).split(b"\n")


def _event(line: bytes) -> Mapping[str, Any] | None:
    """What a line says; None where it is damaged, or not of ours: an event's step is a whole number."""
    try:
        entry = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("event"), str):
        return None
    return entry if type(entry.get("step", 0)) is int else None


class Warnings(logging.Handler):
    """Shows `logging`'s warnings as lines of the command, and keeps them for the record."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
