"""What `bertkit compare` does once its options are read. Kept apart so that `--help` imports none of it."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.entries import Entry
from bertkit.comparison.fairness import refused
from bertkit.comparison.files import to_csv, to_mapping
from bertkit.comparison.load import read
from bertkit.comparison.markdown import to_markdown
from bertkit.comparison.parity import hold, lines
from bertkit.comparison.text import refusal, show
from bertkit.console import Display
from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_text
from bertkit.files.inputs import is_folder
from bertkit.files.streams import put, put_json, writing


@dataclass(frozen=True)
class Words:
    """The options of `bertkit compare`, in the order of its signature."""

    records: tuple[str, ...]
    baseline: str | None
    strict: bool
    target: float | None
    parity: bool
    steps: int | None
    published: str | None
    markdown: Path | None
    html: Path | None
    csv: Path | None
    json: bool
    quiet: bool


def run_compare(words: Words) -> int:
    """Read, compare, show and write. Returns the exit code."""
    _check(words)
    display = Display(quiet=words.quiet)
    entries, left_out = read(words.records, display.follow())
    if not entries and left_out:
        raise UserError(left_out[0], f"and {len(left_out) - 1} more like it" if len(left_out) > 1 else "")
    if words.parity:
        return _parity(words, entries, left_out, display)
    made = compare(entries, words.baseline, words.target, left_out, _names(words.published))
    for line in left_out:
        display.warn(line)
    for path, write in _files(words):  # before what is shown: `| head` may end that early
        write_text(path, write(made))
        display.say(f"written: {path}")
    if words.json:
        put_json(to_json(to_mapping(made)))
    else:
        with writing():
            show(made, sys.stdout)
    unfair = refused(made.differences)
    if words.strict and (unfair or left_out):
        why = refusal(unfair) or f"records that could not be read: {len(left_out)}"
        raise UserError(f"--strict: not comparable: {why}", "compare like with like, or leave --strict away")
    return 1 if left_out else 0


def list_published(json: bool) -> int:
    """The names for `--published`, and what stands under each."""
    from bertkit.comparison.published import listing

    found = listing()
    if json:
        put_json(to_json([dataclasses.asdict(one) for one in found], indent=1))
        return 0
    rows = [("names", "figures", "tasks", "machine")]
    rows += [(" ".join(one.names), str(one.figures), " ".join(one.tasks), one.title) for one in found]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        put("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _check(words: Words) -> None:
    if not words.records:
        raise UserError("no record is named", "name runs' folders, as in bertkit compare runs/a runs/b")
    files = [path for path in (words.markdown, words.html, words.csv) if path is not None]
    for path in files:
        if is_folder(path):
            raise UserError(f"{path} is a folder", "name a file")
    if len(set(files)) < len(files):
        raise UserError(f"{files[0]} is named twice", "give each form a file of its own")
    if words.parity and (files or words.strict or words.baseline or words.target or words.published):
        raise UserError("--parity answers one question", "leave the other options away; --steps and --json go with it")
    if words.steps and not words.parity:
        raise UserError("--steps says how many updates --parity looks at", "add --parity")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _files(words: Words) -> list[tuple[Path, Callable[[Comparison], str]]]:
    """What was asked for, the page last: it takes longest."""
    wanted: list[tuple[Path | None, Callable[[Comparison], str]]] = [
        (words.markdown, to_markdown),
        (words.csv, to_csv),
        (words.html, _page),
    ]
    return [(path.expanduser(), write) for path, write in wanted if path is not None]


def _page(made: Comparison) -> str:
    from bertkit.comparison.page import to_html  # loads matplotlib

    return to_html(made)


def _parity(words: Words, entries: list[Entry], left_out: list[str], display: Display) -> int:
    if left_out:
        raise UserError(left_out[0])
    if len(entries) != 2:
        raise UserError(f"--parity holds two runs against one another, not {len(entries)}", "name two folders of runs")
    found = hold(entries[0], entries[1], words.steps)
    if words.json:
        put_json(to_json(found.to_mapping()))
    else:
        put("\n".join(lines(found)))
    return 0 if found.verdict.holds else 1
