"""What a record tells of pre-training's data, and what must not differ between two such runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from bertkit.data.pretraining.dataset import PretrainingData
from bertkit.data.pretraining.evaluation_set import EvaluationSet
from bertkit.records import collect
from bertkit.records.fields import Fairness
from bertkit.training.comparability import of_training, together
from bertkit.training.phases import Phase
from bertkit.training.setup import RunSetup


def of_phases(setup: RunSetup, phases: Sequence[Phase], steps: int) -> dict[str, Any]:
    """The record's `data` and `fairness`."""
    return {
        "data": {
            "task": setup.task.name,
            "train": _training(phases),
            "evaluation": [_evaluation(phase.scored_on, f"phase {phase.number}") for phase in phases],
        },
        "fairness": dataclasses.asdict(_fairness(setup, phases, steps)),
    }


def _training(phases: Sequence[Phase]) -> dict[str, Any]:
    """All phases' shards as one part; how long the sequences are is known where there are manifests."""
    entries = [entry for phase in phases if phase.data.manifest for entry in phase.data.manifest.shards]
    known = all(phase.data.manifest for phase in phases)
    sequences = sum(entry.sequences for entry in entries) if known else 0
    masked = sum(entry.masked for entry in entries)
    return {
        "name": "train",
        "file": " + ".join(dict.fromkeys(phase.place.name for phase in phases)),
        "sha256": _sources([phase.data for phase in phases]),
        "features_sha256": together(phase.data.digest() for phase in phases),
        "examples": None,
        "sequences": sum(phase.sampler.examples for phase in phases),
        "mean_tokens": collect.number(sum(entry.tokens for entry in entries) / sequences) if sequences else None,
        "tokens": {},
        "mean_masked": collect.number(masked / sequences) if sequences and masked else None,
        "faults": [],
    }


def _evaluation(scored_on: EvaluationSet, name: str) -> dict[str, Any]:
    return {
        "name": f"{name}: {scored_on.kind}",
        "file": scored_on.place.name,
        "sha256": _sources([scored_on.data]),
        "features_sha256": scored_on.data.digest(),
        "examples": None,
        "sequences": len(scored_on.examples),
        **collect.lengths(scored_on.lengths),
        "mean_masked": collect.number(float(scored_on.data.masked_counts(scored_on.examples).mean())),
        "faults": [],
    }


def _sources(data: Sequence[PretrainingData]) -> str | None:
    """SHA-256 of the texts that the data was made from, where its manifests say."""
    if not all(found.manifest for found in data):
        return None
    return together(source.sha256 for found in data if found.manifest for source in found.manifest.sources)


def _fairness(setup: RunSetup, phases: Sequence[Phase], steps: int) -> Fairness:
    last = phases[-1]
    schedules = {"schedule": "; ".join(_schedule(phase) for phase in phases)} if len(phases) > 1 else {}
    return of_training(
        setup,
        last.update_settings,
        {
            "updates": steps,
            **schedules,
            "corpus_sha256": _sources([phase.data for phase in phases]),
            "training_features_sha256": together(phase.data.digest() for phase in phases),
            "training_sequences": sum(phase.sampler.examples for phase in phases),
            "lengths": "the data's own" + (", in bins" if len(last.data.bins) > 1 else ""),
            "most_masked": last.data.most_masked,
            "evaluation_sha256": _sources([phase.scored_on.data for phase in phases]),
            "evaluation_features_sha256": together(phase.scored_on.data.digest() for phase in phases),
            "evaluation_examples": sum(len(phase.scored_on.examples) for phase in phases),
        },
    )


def _schedule(phase: Phase) -> str:
    """A phase's schedule in words: two runs of two phases are compared by it."""
    made = phase.update_settings
    return (
        f"phase {phase.number}: {phase.steps} updates of {phase.sampler.batch_size} sequences of up to "
        f"{made.sequence_length}, {made.schedule.name} (power {made.schedule.power:g}) from {made.peak_rate:g} after "
        f"{made.warmup_updates}"
    )
