"""What a search found: the trials as a table, CSV and JSON, the best one's recipe, and the bias of its score."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.comparison.search.space import Dimension
from bertkit.comparison.search.study import COMPLETE, FAILED, PRUNED, Tried
from bertkit.comparison.tables import Table
from bertkit.data.tasks.metrics import worth
from bertkit.errors import one_line
from bertkit.files.disk import write_json, write_text
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import Resolved
from bertkit.training.run_folder import to_toml
from bertkit.training.selection import Selection, best_by_chance, selection_of

SCHEMA = 1
GAP = "–"
CONFIRM = "train it with other seeds, or score it on data that no trial was scored on"


@dataclass(frozen=True)
class Findings:
    """The state of a search."""

    folder: Path
    task: str
    metric: str
    seed: int
    wanted: int  # trials asked for
    space: tuple[Dimension, ...]
    base: Resolved  # the settings that all trials share
    trials: tuple[Tried, ...]
    exit_code: int = 0  # what a signal that ended this process asks for

    @property
    def completed(self) -> list[Tried]:
        """Trials with a score, the best first; of equals the earlier."""
        found = [one for one in self.trials if one.state == COMPLETE and one.score is not None]
        return sorted(found, key=lambda one: (-worth(self.metric, one.score or 0.0), one.number))

    @property
    def best(self) -> Tried | None:
        return next(iter(self.completed), None)

    @property
    def selection(self) -> Selection | None:
        scores = [one.score for one in self.completed if one.score is not None]
        return selection_of(scores) if scores else None

    @property
    def best_settings(self) -> dict[str, Value]:
        """Every setting of the best trial, save its folder: what best.toml holds."""
        found = dict(self.base.flat()) | {"output": None}
        return found | dict(self.best.settings if self.best else {})

    def count(self, state: str) -> int:
        return sum(one.state == state for one in self.trials)


def summary(found: Findings) -> list[str]:
    """The best trial, and the bias of its score, in lines."""
    best, selection = found.best, found.selection
    if best is None or best.score is None or selection is None:
        return [f"no trial completed ({_others(found) or 'none was begun'})"]
    others = _others(found)
    lines = [
        f"best: trial {best.number}, dev {found.metric} {best.score:.4f}, selected on dev among {selection.of} "
        f"completed trials" + (f" ({others})" if others else ""),
        *(f"  {key} = {value}" for key, value in best.settings.items()),
        selection.told(CONFIRM),
    ]
    better = selection.better_than_mean(best.score)
    if better is not None:
        lines.append(
            f"the best is {better:.2f} standard deviations better than the mean; of {selection.of} trials that "
            f"differed by chance alone it would be {best_by_chance(selection.of):.2f} better"
        )
    return lines


def _others(found: Findings) -> str:
    counts = {state: found.count(state) for state in (PRUNED, FAILED)}
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def table(found: Findings) -> Table:
    """The trials, the best first."""
    rest = sorted((one for one in found.trials if one not in found.completed), key=lambda one: one.number)
    keys = [one.key for one in found.space]
    rows = [
        (
            f"{one.number}" + (" (best)" if one is found.best else ""),
            one.state,
            GAP if one.score is None else f"{one.score:.4f}",
            GAP if one.seconds is None else f"{one.seconds:.1f}",
            *(_cell(one.settings.get(key)) for key in keys),
        )
        for one in (*found.completed, *rest)
    ]
    notes = [f"trial {one.number}: {one.state}: {one_line(one.reason, 200)}" for one in rest if one.reason]
    return Table("Trials", ("trial", "state", found.metric, "training (s)", *keys), rows, notes, words=2)


def _cell(value: Value) -> str:
    return GAP if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def to_csv(found: Findings) -> str:
    """A row for each trial, in their order."""
    keys = [one.key for one in found.space]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["trial", "state", found.metric, "evaluations", "training_seconds", "folder", "reason", *keys])
    for one in found.trials:
        values = [one.number, one.state, one.score, len(one.scores), one.seconds, one.folder, one.reason]
        writer.writerow(["" if value is None else value for value in (*values, *map(one.settings.get, keys))])
    return stream.getvalue()


def to_mapping(found: Findings) -> dict[str, Any]:
    """What tune.json holds."""
    best = found.best
    return {
        "schema": SCHEMA,
        "folder": str(found.folder),
        "task": found.task,
        "metric": found.metric,
        "seed": found.seed,
        "trials_wanted": found.wanted,
        "search": {one.key: one.to_mapping() for one in found.space},
        "trials": [_trial(one) for one in found.trials],
        "best": _trial(best) if best else None,
        "selected": _selected(found),
        "settings": found.base.flat(),
    }


def _trial(one: Tried) -> dict[str, Any]:
    return {
        "trial": one.number,
        "state": one.state,
        "score": one.score,
        "scores": list(one.scores),
        "training_seconds": one.seconds,
        "settings": dict(one.settings),
        "folder": one.folder,
        "reason": one.reason or None,
    }


def _selected(found: Findings) -> dict[str, Any] | None:
    best, selection = found.best, found.selection
    if best is None or best.score is None or selection is None:
        return None
    return {
        "of": selection.of,
        "trial": best.number,
        "metric": found.metric,
        "mean": selection.mean,
        "standard_deviation": selection.standard_deviation,
        "better_than_mean": selection.better_than_mean(best.score),
        "better_than_mean_by_chance": best_by_chance(selection.of),
        "note": f"the best of the trials is selected on the dev set that it is scored on: {CONFIRM}",
    }


def write_files(found: Findings) -> list[str]:
    """Write tune.json, trials.csv, best.toml and the plot. Returns what is to be warned of."""
    warnings = []
    write_json(found.folder / "tune.json", to_mapping(found))
    write_text(found.folder / "trials.csv", to_csv(found))
    if found.best is not None:
        write_text(found.folder / "best.toml", best_toml(found))
        try:
            from bertkit.comparison.search.plots import trials_plot
        except ImportError as error:
            warnings.append(f"no plot is drawn: it needs {error.name}; pip install 'bertkit[tune]'")
        else:
            write_text(found.folder / "trials.svg", trials_plot(found))
    return warnings


def best_toml(found: Findings) -> str:
    """The recipe that trains with the best trial's settings; its first line says where it is from."""
    what = next(iter(summary(found)))
    said = f"# {found.task or 'own data'}: {what.removeprefix('best: ')}"
    return f"{one_line(said, 200)}\n{to_toml(found.best_settings)}"
