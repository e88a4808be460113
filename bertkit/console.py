"""What a run shows: a bar on a terminal, elsewhere plain lines without carriage returns. All of it on stderr.

In a notebook a bar too, as text in one output that is drawn anew, so that no widgets are needed; lines are on stdout
there, since notebooks colour stderr as errors.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from bertkit.errors import visible

SECONDS_BETWEEN_LINES = 5.0
SECONDS_BETWEEN_DRAWINGS = 0.2  # of a notebook's bar: each is a message to the browser
BAR_WIDTH = 20  # characters, in a notebook
Show = Callable[[int, str], None]  # (parts done, what is shown beside)

ENGINES = "bertkit.engine"  # the logger of what takes an engine long, as a warm-up does


class Display:
    """One for each process; silent where `quiet` (as on every rank but the first)."""

    def __init__(self, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.notebook = NotebookBars() if stream is None and in_notebook() else None
        self.stream = stream or (sys.stdout if self.notebook else sys.stderr)
        self.console = Console(file=self.stream, highlight=False, soft_wrap=True, force_jupyter=False)
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
    def progress(self, what: str, total: int, done: int = 0, transient: bool = False) -> Iterator[Counter]:
        """Follow work of `total` parts. Without bars, nothing is shown of work that is over in two seconds.

        `transient`: a terminal's bar is taken away at the end.
        """
        if self.notebook and not self.quiet:
            with self.notebook.bar(what, total, done) as show:
                yield Counter(self, what, total, done, show)
            return
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
            yield Counter(self, what, total, done, _on_terminal(outer, task))
            outer.remove_task(task)
            return
        with Progress(*columns, console=self.console, transient=transient) as bar:
            self._bar = bar
            try:
                task = bar.add_task(what, total=total, completed=done, note="")
                yield Counter(self, what, total, done, _on_terminal(bar, task))
            finally:
                self._bar = None


class Counter:
    """The state of one piece of work on the display."""

    def __init__(self, display: Display, what: str, total: int, done: int, show: Show | None) -> None:
        """`show`: draws a bar; None: lines."""
        self.display, self.what, self.total, self.done, self.show = display, what, total, done, show
        self.first, self.note = done, ""
        self.started = self.shown = time.monotonic()

    def to(self, done: int, values: Mapping[str, str] | None = None) -> None:
        """`done` parts are done; `values` are shown beside."""
        self.done = done
        if values:
            self.note = "  ".join(f"{name} {value}" for name, value in values.items())
        if self.show:
            self.show(done, self.note)
            return
        now = time.monotonic()
        if now - self.shown >= SECONDS_BETWEEN_LINES or (done >= self.total and now - self.started >= 2.0):
            self.shown = now
            self.display.say(f"{self.what} {done}/{self.total}  {self.note}{self._left(now)}".rstrip())

    def add(self, parts: int) -> None:
        self.to(self.done + parts)

    def _left(self, now: float) -> str:
        if not self.first < self.done < self.total:
            return ""
        seconds = (now - self.started) / (self.done - self.first) * (self.total - self.done)
        return f"  about {seconds:.0f} s left"


def _on_terminal(bar: Progress, task: TaskID) -> Show:
    return lambda done, note: bar.update(task, completed=done, note=note)


def in_notebook() -> bool:
    """Whether this process is a notebook's kernel, as rich finds out."""
    return Console().is_jupyter


class NotebookBars:
    """The bars of a cell, one a line. An inner one goes when its work is over; the outer one's last state stays."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.handle: Any = None  # of the output that is drawn anew
        self.drawn = 0.0

    @contextlib.contextmanager
    def bar(self, what: str, total: int, done: int) -> Iterator[Show]:
        place, began = len(self.lines), time.monotonic()
        self.lines.append("")

        def show(now_done: int, note: str) -> None:
            seconds = time.monotonic() - began
            self.lines[place] = bar_text(what, now_done, total, note, seconds)
            self._draw(now=now_done >= total)

        try:
            show(done, "")
            yield show
        finally:
            self._draw(now=True)
            del self.lines[place:]
            if not self.lines:
                self.handle = None  # the next bar has an output of its own

    def _draw(self, now: bool) -> None:
        if not now and time.monotonic() - self.drawn < SECONDS_BETWEEN_DRAWINGS:
            return
        self.drawn = time.monotonic()
        text = {"text/plain": "\n".join(self.lines)}
        if self.handle is None:
            from IPython.display import display

            self.handle = display(text, raw=True, display_id=True)
        else:
            self.handle.update(text, raw=True)


def bar_text(what: str, done: int, total: int, note: str, seconds: float) -> str:
    """A line as `training ━━━━━─────  47/94  loss 0.6931  0:12`."""
    full = BAR_WIDTH * min(done, total) // max(total, 1)
    minutes, rest = divmod(int(seconds), 60)
    parts = (what, "━" * full + "─" * (BAR_WIDTH - full), f"{done}/{total}", note, f"{minutes}:{rest:02}")
    return "  ".join(part for part in parts if part)
