"""What `bertkit bench --suite` does once its options are read. Kept apart so that `--help` imports none of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from bertkit.bench.cells import CellOutcome, How, open_suite, run_cells
from bertkit.bench.plan import check_sets, split_list, whole_numbers
from bertkit.bench.suite import Cell, Wanted, cells, read_suites
from bertkit.bench.table import brief, show_outcomes, summary, total
from bertkit.console import Display
from bertkit.engine.registry import choose
from bertkit.errors import UserError
from bertkit.files.disk import to_json
from bertkit.files.locks import alone_in
from bertkit.files.streams import put, put_json, writing


@dataclass(frozen=True)
class SuiteOptions:
    """The options of `bertkit bench --suite`, in the order of its signature."""

    suite: str
    model: str | None
    dtype: str | None
    batch_size: str | None
    processes: int
    backend: str | None
    steps: int | None
    seconds: float | None
    timeout: float
    seed: int | None
    sets: tuple[str, ...]
    output: Path | None
    dry_run: bool
    json: bool
    quiet: bool


def run_suite(options: SuiteOptions) -> int:
    """Measure what is not measured yet, show all. Exit code 1 where a cell failed for another reason than its size."""
    if options.steps is not None and options.seconds is not None:
        raise UserError("--steps and --seconds exclude each other", "give one of them")
    suites = read_suites(options.suite)
    for suite in suites.values():
        check_sets(suite.kind, options.sets)
    choice = choose(options.backend or "auto", options.dry_run)
    probe, card = choice.backend.probe(), choice.backend
    wanted = Wanted(
        split_list(options.model, "-m") if options.model else (),
        [] if options.dtype in (None, "auto") else split_list(str(options.dtype), "-d"),
        whole_numbers(options.batch_size, "-b") if options.batch_size else (),
    )
    found, lacking = cells(suites, wanted, probe.precisions or card.capabilities.precisions)
    display = Display(quiet=options.quiet)
    display.say(f"backend: {card.name} ({choice.reason})")
    if lacking:
        display.say(f"skipped, not supported by the backend: {', '.join(lacking)}")
    how = How(
        card.name,
        options.processes,
        options.steps or 0,
        options.seconds or 20.0,
        options.timeout,
        options.seed or 1,
        options.sets,
    )
    if options.dry_run:
        return _list(found, options)
    folder = (options.output or Path("runs", "bench", f"{Path(options.suite).stem}-{card.name}")).expanduser()
    with alone_in(folder, "a suite"):
        open_suite(folder, options.suite, how)
        return _measure(folder, found, how, options, display)


def _list(found: list[Cell], options: SuiteOptions) -> int:
    if options.json:
        put_json(to_json([cell.name for cell in found], indent=1))
    else:
        put("\n".join([*(cell.name for cell in found), f"{len(found)} cells"]))
    return 0


def _measure(folder: Path, found: list[Cell], how: How, options: SuiteOptions, display: Display) -> int:
    def tell(number: int, outcome: CellOutcome, before: bool) -> None:
        was = " (measured before)" if before else ""
        display.say(f"cell {number} of {len(found)}: {outcome.cell.name}: {brief(outcome)}{was}")

    outcomes = run_cells(folder, found, how, tell)
    if options.json:
        put_json(to_json({"folder": str(folder), "how": how.compared(), "cells": summary(outcomes)}, indent=1))
    else:
        with writing():
            show_outcomes(outcomes, sys.stdout)
    display.say(f"records: {folder}, one a cell; {total(outcomes)}")
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0
