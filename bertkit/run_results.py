"""What a finished run writes: the model, the dev set's answers, and the record."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit import record
from bertkit.backend import Arrays, Peak
from bertkit.checkpoint import Progress
from bertkit.disk import write_json
from bertkit.meter import Meter, Reading
from bertkit.preparation import Prepared, answer_rules
from bertkit.resolve import Resolved
from bertkit.run_folder import write_model
from bertkit.sampler import Sampler
from bertkit.tasks.task import Answered
from bertkit.world import World


@dataclass(frozen=True)
class Results:
    """All that the record is made from."""

    resolved: Resolved
    ready: Prepared
    world: World
    environment: Mapping[str, Any]
    progress: Progress
    metrics: Mapping[str, float]
    answered: list[Answered]
    reading: Reading
    meter: Meter
    peak: Peak
    peak_memory: int | None
    sampler: Sampler
    steps: int


def write_results(folder: Path | None, results: Results, weights: Arrays) -> dict[str, Any]:
    """Write model, answers and record into `folder` (None: another rank does), the record last. Returns the record."""
    made = make_record(results)
    if folder is None:
        return made
    if not results.reading.updates and (folder / "record.json").exists():  # nothing was left to measure
        with contextlib.suppress(ValueError, KeyError):
            before = json.loads((folder / "record.json").read_text(encoding="utf-8"))
            made |= {name: before[name] for name in ("throughput", "time", "peak_memory_bytes")}
    ready = results.ready
    source = ready.source
    write_model(folder, source.config, ready.task.head, ready.task.labels, source.vocabulary, weights)
    for answered in results.answered:
        answered.write(folder / "predictions", "-dev")
    write_json(folder / "record.json", made)
    return made


def make_record(results: Results) -> dict[str, Any]:
    ready, progress = results.ready, results.progress
    return {
        "schema": record.SCHEMA,
        **results.environment,
        "config": record.settings(results.resolved.flat(), results.resolved.sources),
        "backend": {"name": ready.choice.backend.name, "reason": ready.choice.reason},
        "precision": {"name": ready.precision, "reason": ready.precision_reason},
        "model": _model(results),
        "data": _data(results),
        "metrics": {name: float(value) for name, value in results.metrics.items()},
        "majority_class": _majority(ready),
        "result": ready.recipe.checkpoint.result,
        "evaluations": [dict(entry) for entry in progress.evaluations],
        "best": {"step": progress.best_step, "metric": ready.task.primary, "value": progress.best_score}
        if progress.best_step
        else None,
        "losses": [float(f"{value:.7g}") for value in progress.losses],
        "updates": results.steps,
        "throughput": record.throughput(results.reading, results.peak, results.world),
        "time": record.times(results.meter, results.reading)
        | {"training_seconds_of_all_legs": record.number(progress.train_seconds)},
        "peak_memory_bytes": results.peak_memory,
        "energy_joules": None,  # not read on this system
    }


def _majority(ready: Prepared) -> dict[str, float] | None:
    """What always answering the first dev set's most frequent class scores on it; None for regression."""
    if ready.task.head.kind != "classification":
        return None
    labels = ready.dev[0].features.labels["labels"]
    counts = np.bincount(labels, minlength=ready.task.head.outputs)
    guess = {"logits": np.tile(counts.astype(np.float32), (len(labels), 1))}
    return ready.task.format.answer(ready.task, ready.dev[0], guess, answer_rules(ready.recipe)).metrics


def _model(results: Results) -> dict[str, Any]:
    ready = results.ready
    source, fit = ready.source, ready.fit
    return {
        "name": source.name,
        "parameters": sum(int(array.size) for array in fit.weights.values()),
        "missing_at_start": list(fit.missing),
        "unexpected_at_start": list(fit.unexpected),
        "vocabulary_sha256": source.vocabulary.digest,
        "lower_case": source.vocabulary.lower_case,
        "random_start": source.folder is None,
        "start_sha256": fit.digest,
    }


def _data(results: Results) -> dict[str, Any]:
    ready = results.ready
    parts = {"train": ready.train} | {f"dev{f'_{part.name}' if part.name else ''}": part for part in ready.dev}
    return {
        "task": ready.task.name,
        "global_batch": results.sampler.batch_size,
        **{
            name: {
                "file": part.file.name,
                "sha256": part.sha256,
                "features_sha256": part.features.digest(),
                "examples": part.examples,
                "sequences": len(part.features),
                "faults": list(part.faults),
                "mean_tokens": record.number(float(part.features.lengths.mean())),
            }
            for name, part in parts.items()
        },
    }
