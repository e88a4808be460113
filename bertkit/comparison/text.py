"""The comparison on a terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as Grid

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.fairness import Difference, Weight, told
from bertkit.comparison.tables import JOIN, Table, all_tables

WIDTH = 120  # at least; a table that needs more takes more, so that no cell is cut
MOST = 40  # systems shown; the files have all
TITLES: dict[Weight, str] = {
    "unfair": "Not comparable: these must match",
    "unknown": "Unknown for some runs",
    "noted": "Other differences",
}


def show(made: Comparison, stream: TextIO) -> None:
    """Plain text where `stream` is no terminal."""
    console = _console(stream)
    for line in fairness_lines(made):
        console.print(line, markup=False, emoji=False, soft_wrap=True)
    for table in map(_numbered, all_tables(made)):
        _print(console, table)
    if max(len(made.systems), len(made.published)) > MOST:
        console.print(f"showing the first {MOST} rows of each table; --csv, --json and --html have all")


def show_table(table: Table, stream: TextIO) -> None:
    """One table alone, as those of a comparison are."""
    _print(_console(stream), table)
    if len(table.rows) > MOST:
        stream.write(f"showing the first {MOST} of {len(table.rows)} rows\n")


def _console(stream: TextIO) -> Console:
    console = Console(file=stream, highlight=False, soft_wrap=False)
    console.width = max(console.width, WIDTH)
    return console


def _print(console: Console, table: Table) -> None:
    width = console.width
    console.print(f"\n{table.title}", markup=False, emoji=False, style="bold")
    grid = _grid(table)
    if not table.prose:
        wide = console.options.update(max_width=10 * WIDTH)
        console.width = max(width, Measurement.get(console, wide, grid).maximum)
    console.print(grid, markup=False)
    console.width = width
    for note in table.notes:
        console.print(note, markup=False, emoji=False, soft_wrap=True, style="dim")


def fairness_lines(made: Comparison) -> list[str]:
    """Differing settings first, then notes on single records."""
    lines: list[str] = []
    for weight, title in TITLES.items():
        found = told(made.differences, weight)
        lines += [f"{title}:", *(f"  {line}" for line in found)] if found else []
    if len(made.systems) > 1 and not any(one.weight != "noted" for one in made.differences):
        lines.insert(0, "Comparable: all settings that must match do.")
    lines += ["Notes on single records:", *(f"  {mark}" for mark in made.marks)] if made.marks else []
    lines += ["Skipped:", *(f"  {line}" for line in made.left_out)] if made.left_out else []
    return lines


def refusal(found: Iterable[Difference]) -> str:
    """Why `--strict` refuses, in one line."""
    names = [one.name for one in found]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _numbered(table: Table) -> Table:
    """Sentences of the last column as numbers, and the numbers' meaning below: a terminal is narrow."""
    if not table.prose:
        return table
    reasons: dict[str, int] = {}
    rows = []
    for row in table.rows[:MOST]:
        numbers = [reasons.setdefault(reason, len(reasons) + 1) for reason in row[-1].split(JOIN) if reason]
        rows.append((*row[:-1], " ".join(map(str, numbers))))
    notes = [*table.notes, *(f"{number}: {reason}" for reason, number in reasons.items())]
    return dataclasses.replace(table, rows=rows, notes=notes)


def _grid(table: Table) -> Grid:
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(table.headings):
        words = number < table.words or (table.prose and number == len(table.headings) - 1)
        wraps = number == 0 or (words and table.prose)
        grid.add_column(heading, justify="left" if words else "right", no_wrap=not wraps, overflow="fold")
    for row in table.rows[:MOST]:
        grid.add_row(*(cell.replace("[", "\\[") for cell in row))
    return grid
