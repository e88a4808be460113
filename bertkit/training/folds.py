"""Cross-validation: the runs of all folds, and what they score together."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.files.disk import write_json

NAME = "folds.json"


def fold_settings(number: int, folds: int, output: Path) -> dict[str, str]:
    """What differs in the run of the fold `number`, from 0."""
    return {"table.fold": f"{number}/{folds}", "output": str(output / f"fold-{number}")}


def summary(metrics: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Each metric's mean, standard deviation and values over the folds."""
    found = {}
    for name in metrics[0]:
        values = [float(one[name]) for one in metrics]
        spread = statistics.stdev(values) if len(values) > 1 else None
        found[name] = {"mean": statistics.fmean(values), "sd": spread, "folds": values}
    return found


def write_summary(output: Path, metrics: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Write it beside the folds' folders. The folds share most of their training rows, so their scores are not
    independent: the standard deviation is of the folds, not of the mean."""
    made = {"folds": len(metrics), "metrics": summary(metrics)}
    write_json(output / NAME, made)
    return made
