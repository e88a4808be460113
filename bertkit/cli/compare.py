"""`bertkit compare`"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bertkit.cli import options as o
from bertkit.errors import UserError
from bertkit.files.inputs import is_folder
from bertkit.files.streams import put, put_json, writing

if TYPE_CHECKING:
    from bertkit.comparison.comparison import Comparison
    from bertkit.comparison.entries import Entry
    from bertkit.console import Display


def compare(
    records: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RECORD…",
            help="Run folders, folders of runs, record files or patterns; NAME=… names a system.",
            show_default=False,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(
            "--baseline", metavar="NAME", help="System that ratios are relative to.", show_default="the first"
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail (exit code 2) unless the runs are comparable.")
    ] = False,
    target: Annotated[
        float | None,
        typer.Option("--target", help="Target score for time to accuracy and energy.", show_default="reached by all"),
    ] = None,
    parity: Annotated[
        bool, typer.Option("--parity", help="Check that two runs with one seed have the same loss curve.")
    ] = False,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="With --parity: compare only the first N updates.", show_default="all"),
    ] = None,
    published: Annotated[
        str | None,
        typer.Option(
            "--published",
            metavar="NAME,…",
            help="Show published figures next to the baseline; `list` prints the names.",
            show_default=False,
        ),
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Write a Markdown report.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a self-contained HTML report with plots.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", metavar="FILE", help="Write a CSV file, one row per figure.")
    ] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> int:
    """Compare runs side by side: differing settings first, then results, speed, time and energy.

    Runs that differ only in the seed are one system, shown as mean ± standard deviation.

    Examples:

      bertkit compare runs/mrpc-a runs/mrpc-b

      bertkit compare mine='runs/mrpc-seed*' theirs=results/ --baseline theirs --html report.html

      bertkit compare runs/* --strict --csv figures.csv --markdown report.md

      bertkit compare --published list

      bertkit compare runs/squad --published a100,t4

      bertkit compare --parity runs/here runs/there

    Exit codes: 0 compared; 1 a record could not be read, or parity fails; 2 not comparable, or a usage error.
    """
    if published == "list":
        return list_published(json_)
    return run_compare(
        CompareOptions(
            tuple(records or ()), baseline, strict, target, parity, steps, published, markdown, html, csv, json_, quiet
        )
    )


@dataclass(frozen=True)
class CompareOptions:
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


def run_compare(options: CompareOptions) -> int:
    """Read, compare, show and write. Returns the exit code."""
    from bertkit.comparison.comparison import compare as compare_entries
    from bertkit.comparison.fairness import refused
    from bertkit.comparison.files import to_mapping
    from bertkit.comparison.load import read_some
    from bertkit.comparison.text import refusal, show
    from bertkit.console import Display
    from bertkit.files.disk import to_json, write_text

    _check(options)
    display = Display(quiet=options.quiet)
    entries, left_out = read_some(options.records, display.follow())
    if options.parity:
        return _parity(options, entries, left_out, display)
    made = compare_entries(entries, options.baseline, options.target, left_out, _names(options.published))
    for line in left_out:
        display.warn(line)
    for path, write in _files(options):  # before what is shown: `| head` may end that early
        write_text(path, write(made))
        display.say(f"written: {path}")
    if options.json:
        put_json(to_json(to_mapping(made)))
    else:
        with writing():
            show(made, sys.stdout)
    unfair = refused(made.differences)
    if options.strict and (unfair or left_out):
        why = refusal(unfair) or f"records that could not be read: {len(left_out)}"
        raise UserError(f"--strict: not comparable: {why}", "compare runs with equal settings, or drop --strict")
    return 1 if left_out else 0


def list_published(json: bool) -> int:
    """Print the names for `--published`, and what each holds."""
    from bertkit.comparison.published import listing
    from bertkit.files.disk import to_json

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


def _check(options: CompareOptions) -> None:
    if not options.records:
        raise UserError("no record is given", "name run folders, as in bertkit compare runs/a runs/b")
    files = [path for path in (options.markdown, options.html, options.csv) if path is not None]
    for path in files:
        if is_folder(path):
            raise UserError(f"{path} is a folder", "name a file")
    if len(set(files)) < len(files):
        raise UserError(f"{files[0]} is named twice", "use a separate file for each format")
    if options.parity and (files or options.strict or options.baseline or options.target or options.published):
        raise UserError("--parity combines only with --steps and --json", "remove the other options")
    if options.steps and not options.parity:
        raise UserError("--steps needs --parity", "add --parity")


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _files(options: CompareOptions) -> list[tuple[Path, Callable[[Comparison], str]]]:
    """What was asked for, the page last: it takes longest."""
    from bertkit.comparison.files import to_csv
    from bertkit.comparison.markdown import to_markdown

    wanted: list[tuple[Path | None, Callable[[Comparison], str]]] = [
        (options.markdown, to_markdown),
        (options.csv, to_csv),
        (options.html, _page),
    ]
    return [(path.expanduser(), write) for path, write in wanted if path is not None]


def _page(made: Comparison) -> str:
    from bertkit.comparison.page import to_html  # loads matplotlib

    return to_html(made)


def _parity(options: CompareOptions, entries: list[Entry], left_out: list[str], display: Display) -> int:
    from bertkit.comparison.parity import hold, lines
    from bertkit.files.disk import to_json

    if left_out:
        raise UserError(left_out[0])
    if len(entries) != 2:
        raise UserError(f"--parity compares two runs, not {len(entries)}", "name two run folders")
    found = hold(entries[0], entries[1], options.steps)
    if options.json:
        put_json(to_json(found.to_mapping()))
    else:
        put("\n".join(lines(found)))
    return 0 if found.verdict.holds else 1
