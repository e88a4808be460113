"""Runs compared from Python: what `bertkit.compare` is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.load import read_some


def compare_runs(
    *records: str | Path, baseline: str | None = None, target: float | None = None, published: Sequence[str] = ()
) -> Comparison:
    """Compare folders of runs, records' files and globs, each with or without NAME= before it.

    The first is what the others are compared with, or the one called `baseline`; `target`: the score whose time is
    compared; `published`: names of published figures to stand beside. `print` shows the comparison as a table.
    """
    entries, left_out = read_some([str(record) for record in records], lambda what, done, of: None)
    return compare(entries, baseline, target, left_out, published)
