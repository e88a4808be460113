"""From rounds to rates and ratios, and the table on the screen.

Legend: R rounds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(rounds: Sequence[Mapping[str, Any]], reference: str, peaks: Mapping[str, float]) -> dict[str, Any]:
    """Competitor -> its rates and its times over the reference's times in the same round.

    `rounds`: entries with competitor, precision, round, wall, cpu, steps, sequences, tokens and flops.
    Ratios are of times per real token; above 1 the reference needed less.
    `mfu` is None where no peak of that precision is known.
    """
    of = {(one["competitor"], one["round"]): one for one in rounds}
    made: dict[str, Any] = {}
    for name in dict.fromkeys(one["competitor"] for one in rounds):
        mine = [one for one in rounds if one["competitor"] == name]
        pairs = [(one, of[reference, one["round"]]) for one in mine if (reference, one["round"]) in of]
        peak = peaks.get(mine[0]["precision"])
        made[name] = {
            "step_seconds": spread([one["wall"] / one["steps"] for one in mine]),
            "step_cpu_seconds": spread([one["cpu"] / one["steps"] for one in mine]),
            "sequences_per_second": spread([one["sequences"] / one["wall"] for one in mine]),
            "tokens_per_second": spread([one["tokens"] / one["wall"] for one in mine]),
            "mfu": spread([one["flops"] / one["wall"] / peak for one in mine]) if peak else None,
            "wall_ratio": ratio(pairs, "wall"),
            "cpu_ratio": ratio(pairs, "cpu"),
        }
    return made


def ratio(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], time: str) -> dict[str, float] | None:
    """`time` a real token of each pair's first over its second's."""
    values = [one[time] / one["tokens"] / (ours[time] / ours["tokens"]) for one, ours in pairs]
    return spread(values) if values else None


def table(made: Mapping[str, Any], reference: str) -> str:
    heads = ("competitor", "s/step", "CPU s/step", "seq/s", "tokens/s", "MFU", "wall ratio", "CPU ratio")
    rows = [heads]
    for name, one in made.items():
        mfu = f"{100 * one['mfu']['median']:.0f} %" if one["mfu"] else "-"
        rows.append((
            name, f"{one['step_seconds']['median']:.3f}", f"{one['step_cpu_seconds']['median']:.3f}",
            f"{one['sequences_per_second']['median']:.2f}", f"{one['tokens_per_second']['median']:.0f}", mfu,
            _ratio(one["wall_ratio"]), _ratio(one["cpu_ratio"]),
        ))  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [*lines, f"Medians; ratios: time a real token over {reference}'s in the same round, median (min..max)."]
    )


def _ratio(value: Mapping[str, float] | None) -> str:
    return f"{value['median']:.2f} ({value['min']:.2f}..{value['max']:.2f})" if value else "-"


def agreement(folder: Path, names: Sequence[str], reference: str) -> dict[str, dict[str, float]]:
    """How far each competitor's results on the same examples are from the reference's.

    Training: first losses (dropout differs). Inference: largest and root-mean-square difference of the logits, and the
    logits' own standard deviation.
    """
    if not (folder / f"{reference}.npy").exists():
        return {}
    made: dict[str, dict[str, float]] = {}
    right = np.load(folder / f"{reference}.npy").astype(np.float64)
    for name in names:
        if not (folder / f"{name}.npy").exists():
            continue
        found = np.load(folder / f"{name}.npy").astype(np.float64)
        if found.ndim == 0:
            made[name] = {"first_loss": float(found)}
            continue
        gap = found - right
        made[name] = {"largest": float(np.abs(gap).max()), "rms": float(np.sqrt((gap**2).mean())),
                      "logits_std": float(right.std())}  # fmt: skip
    return made
