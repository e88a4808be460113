"""What a run shows: a bar on a terminal, elsewhere plain lines without carriage returns. All of it on stderr."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from bertkit.errors import visible

SECONDS_BETWEEN_LINES = 5.0


ENGINES = "bertkit.engine"  # the logger of what takes an engine long, as a warm-up does


class Display:
    """One for each process; silent where `quiet` (as on every rank but the first)."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.stream = stream or sys.stderr
        self.console = Console(file=self.stream, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self.bars = self.console.is_terminal and not quiet
        self._bar: Progress | None = None
        logging.getLogger(ENGINES).setLevel(logging.WARNING if quiet else logging.INFO)

    def say(self, text: str) -> None:
        """One line that stays."""
        if not self.quiet:
            (self._bar.console if self._bar else self.console).print(visible(text), markup=False, emoji=False)

    def warn(self, text: str) -> None:
        self.say(f"warning: {text}")

    def follow(self) -> Callable[[str, int, int], None]:
        """What to call with (what, done, of how many; 0: not known). Work that is over in two seconds shows nothing."""
        started: dict[str, float] = {}
        shown: dict[str, float] = {}

        def tell(what: str, done: int, of: int) -> None:
            now = time.monotonic()
            first = started.setdefault(what, now)
            every = SECONDS_BETWEEN_LINES if what in shown else 2.0
            if now - shown.get(what, first) >= every:
                shown[what] = now
                self.say(f"{what}: {done:,}" + (f" of {of:,}" if of else ""))

        return tell

    @contextlib.contextmanager
    def progress(self, what: str, total: int, done: int = 0) -> Iterator[Counter]:
        """Follow work of `total` parts. Shows nothing of work that is over in two seconds, save on a terminal."""
        if not self.bars:
            yield Counter(self, what, total, done, None)
            return
        plain = Column(no_wrap=True)
        columns = (  # 80 characters in all
            TextColumn("{task.description}"), BarColumn(14), MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", table_column=plain), TimeRemainingColumn(),
        )  # fmt: skip
        outer = self._bar
        if outer is not None:  # a bar within a bar: evaluation during training
            task = outer.add_task(what, total=total, completed=done, note="")
            yield Counter(self, what, total, done, (outer, task))
            outer.remove_task(task)
            return
        with Progress(*columns, console=self.console) as bar:
            self._bar = bar
            try:
                yield Counter(self, what, total, done, (bar, bar.add_task(what, total=total, completed=done, note="")))
            finally:
                self._bar = None


class Counter:
    """The state of one piece of work on the display."""

    def __init__(self, display: Display, what: str, total: int, done: int, bar: tuple[Progress, object] | None) -> None:
        self.display, self.what, self.total, self.done, self.bar = display, what, total, done, bar
        self.first = done
        self.started = self.shown = time.monotonic()

    def to(self, done: int, values: Mapping[str, str] | None = None) -> None:
        """`done` parts are done; `values` are shown beside."""
        self.done = done
        note = "  ".join(f"{name} {value}" for name, value in (values or {}).items())
        if self.bar:
            progress, task = self.bar
            progress.update(task, completed=done, **({"note": note} if values else {}))  # type: ignore[arg-type]
            return
        now = time.monotonic()
        if now - self.shown >= SECONDS_BETWEEN_LINES or (done >= self.total and now - self.started >= 2.0):
            self.shown = now
            self.display.say(f"{self.what} {done}/{self.total}  {note}{self._left(now)}".rstrip())

    def add(self, parts: int) -> None:
        self.to(self.done + parts)

    def _left(self, now: float) -> str:
        if not self.first < self.done < self.total:
            return ""
        seconds = (now - self.started) / (self.done - self.first) * (self.total - self.done)
        return f"  about {seconds:.0f} s left"
