"""The run's log: JSON objects, one a line, written as the run goes and read back by anyone."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.disk import to_json, write_text
from bertkit.errors import UserError
from bertkit.log_lines import Follower

FILE = "log.jsonl"


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
        """Forget what a resumed run will do again: events of later steps, and a last line that a crash cut off."""
        if self.path is None or not self.path.exists():
            return
        kept = [to_json(entry) for entry in read_log(self.path) if entry.get("step", 0) <= step]
        write_text(self.path, "".join(line + "\n" for line in kept))


def read_log(path: Path) -> Iterator[Mapping[str, Any]]:
    """The events of a log; a line that is not whole is passed over."""
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(entry, dict):
            yield entry


class Warnings(logging.Handler):
    """Shows `logging`'s warnings as lines of the command, and keeps them for the record."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())
