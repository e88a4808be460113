"""Loss curves as they are drawn: the mean over a system's seeds, and how far from the baseline's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bertkit.comparison.systems import System

POINTS = 300  # of a curve; more are averaged in blocks


def mean_curve(system: System) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """(updates, mean, standard deviation or None) over the seeds, as far as all of them go."""
    curves = [entry.losses for entry in system.entries if len(entry.losses)]
    length = min(map(len, curves))
    block = max(1, -(-length // POINTS))
    starts = np.arange(0, length, block)
    counts = np.diff([*starts, length])
    blocks = np.array([np.add.reduceat(curve[:length], starts) / counts for curve in curves])
    sd = blocks.std(0, ddof=1) if len(curves) > 1 else None
    return starts + (counts + 1) / 2, blocks.mean(0), sd


def distances(baseline: System, shown: Sequence[System]) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Number -> (updates, absolute difference from the baseline's loss; NaN where it is 0), of as many updates."""
    if baseline not in shown:
        return {}
    at, base, _ = mean_curve(baseline)
    found = {}
    for number, system in enumerate(shown):
        x, mean, _ = mean_curve(system)
        if system is not baseline and np.array_equal(x, at):
            distance = np.abs(mean - base)
            distance[distance == 0] = np.nan  # a logarithm has no place for it
            if np.isfinite(distance).any():
                found[number] = x, distance
    return found
