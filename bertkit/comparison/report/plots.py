"""The plots of a run's report."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import rc_context

from bertkit.comparison.drawing import STYLE, Plot, below, both_forms, in_blocks, look, new_figure, to_svg
from bertkit.comparison.report.reading import RunReport

MOST_CLASSES = 25  # of a confusion matrix that is drawn
SMOOTH = 200  # points of the loss curve


def all_plots(made: RunReport) -> list[Plot]:
    """Those for which there is something to draw."""
    with rc_context(STYLE):  # type: ignore[arg-type]
        drawn = [both_forms(functools.partial(draw, made)) for draw in DRAWN]
    return [plot for plot in drawn if plot is not None]


def curves(made: RunReport, narrow: bool) -> Plot | None:
    """Training loss by update, and the dev set's metrics at each evaluation."""
    losses, evaluations = np.array(made.losses), made.record["evaluations"]
    if not len(losses):
        return None
    figure, (left, *beside) = new_figure(2 if evaluations else 1, 3.2, narrow)
    at, means, block = in_blocks(losses, SMOOTH)
    left.plot(at, means, linewidth=1.2, **look(0))
    left.set_title("training loss")
    left.set_xlabel("update")
    for axes in beside:
        names = [name for name in evaluations[0]["metrics"] if made.record["units"].get(name) != "unit of the target"]
        for number, name in enumerate(names[:6]):
            values = [entry["metrics"].get(name) for entry in evaluations]
            axes.plot(
                [entry["step"] for entry in evaluations], values, marker="o", markersize=4, label=name, **look(number)
            )
        axes.set_title("dev set")
        axes.set_xlabel("update")
        below(figure, axes)
    caption = f"Each point of the loss is the mean of {block} updates." if block > 1 else ""
    return Plot("Course", to_svg(figure, f"curves{narrow}"), caption)


def confusion(made: RunReport, narrow: bool) -> Plot | None:
    """Which labels were taken for which: counts, shaded by the share of the label's examples."""
    matrix = np.array(made.details.get("confusion", []), float)
    if not 2 <= len(matrix) <= MOST_CLASSES:
        return None
    names = [each["label"][:20] for each in made.details["classes"]]
    size = 1.6 + 0.42 * len(names)
    figure, (axes,) = new_figure(1, min(size, 4.6) if narrow else size, narrow)
    shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*matrix.shape):
        ink = "white" if shares[row, column] > 0.55 else "black"
        if len(names) <= (8 if narrow else MOST_CLASSES) and matrix[row, column]:
            axes.text(column, row, f"{matrix[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=9)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.grid(visible=False)
    return Plot("Confusions", to_svg(figure, f"confusion{narrow}"), "Examples; the shade is the share of the row.")


def calibration(made: RunReport, narrow: bool) -> Plot | None:
    """How often the model was right, by how sure it was."""
    told: dict[str, Any] = {"as it is": made.details.get("calibration")}
    told["divided by the temperature"] = made.details.get("calibration_at_temperature")
    shown = {name: found for name, found in told.items() if found}
    if not shown:
        return None
    figure, panels = new_figure(len(shown), 3.4, narrow)
    for axes, (name, found) in zip(panels, shown.items(), strict=True):
        axes.plot([0, 1], [0, 1], color="#999999", linewidth=0.8, linestyle=":")
        bins = found["bins"]
        sizes = [8 + 200 * one["count"] / max(each["count"] for each in bins) for one in bins]
        sure, right = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
        axes.scatter(sure, right, s=sizes, alpha=0.6, color=look(0)["color"])
        axes.plot(sure, right, linewidth=0.8, **look(0))
        axes.set_title(f"{name}: expected error {found['ece']:.3f}")
        axes.set_xlabel("probability")
        axes.set_ylabel("share right")
        axes.set_xlim(0, 1.02)
        axes.set_ylim(0, 1.05)
    return Plot("Calibration", to_svg(figure, f"calibration{narrow}"), "The larger a point, the more examples it has.")


def lengths(made: RunReport, narrow: bool) -> Plot | None:
    """The error of short examples and of long ones."""
    found = made.details.get("by_length")
    if not found:
        return None
    figure, (axes,) = new_figure(1, 2.6, narrow)
    parts = found["parts"]
    axes.bar(range(len(parts)), [part["error"] for part in parts], 0.6, color="#6baed6", edgecolor="#2b5d84")
    axes.set_xticks(range(len(parts)), [f"{part['from']} to {part['to']}" for part in parts])
    axes.set_xlabel("tokens")
    axes.set_title(found["of"])
    axes.grid(axis="x", visible=False)
    return Plot("Error by length", to_svg(figure, f"lengths{narrow}"), "Parts of like many examples.")


DRAWN: tuple[Callable[[RunReport, bool], Plot | None], ...] = (curves, confusion, calibration, lengths)
