"""The comparison as Markdown, for an issue or a report."""

from __future__ import annotations

from bertkit.comparison.comparison import Comparison
from bertkit.comparison.tables import Table, all_tables
from bertkit.comparison.text import fairness_lines


def to_markdown(made: Comparison) -> str:
    """One heading, what differs, and a table for each topic."""
    parts = [f"# {' against '.join(_cell(system.name) for system in made.systems[:4])}"]
    parts += ["\n".join(_line(line) for line in fairness_lines(made))]
    parts += [_table(table) for table in all_tables(made)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _line(line: str) -> str:
    return f"- {_cell(line.strip())}" if line.startswith("  ") else f"\n**{_cell(line)}**\n"


def _table(table: Table) -> str:
    last = len(table.headings) - 1 if table.prose else None
    aligned = ["---" if n < table.words or n == last else "---:" for n in range(len(table.headings))]
    rows = [table.headings, tuple(aligned), *(tuple(_cell(cell) for cell in row) for row in table.rows)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([f"## {_cell(table.title)}", "", *lines, *(f"\n{_cell(note)}" for note in table.notes)])


def _cell(text: str) -> str:
    """Text in which Markdown sees no markup of its own."""
    for sign in "\\|*_`<>[]#":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")
