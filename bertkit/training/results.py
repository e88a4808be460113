"""What a finished run writes: the model, the dev set's answers, and the record."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bertkit.data.tasks.task import Answered
from bertkit.engine.interface import Arrays, Engine, Peak
from bertkit.errors import UserError
from bertkit.files.disk import write_json
from bertkit.model.saving import write_model
from bertkit.recipes.resolve import Resolved
from bertkit.records import collect
from bertkit.records.energy import Energy
from bertkit.records.files import NAME, load, write
from bertkit.records.host import cpu_mhz
from bertkit.records.meter import WARMUP_RULE, Meter, Reading, over_ranks
from bertkit.records.schema import blank
from bertkit.training.comparability import as_computed
from bertkit.training.extras import calibrated
from bertkit.training.objective import Objective
from bertkit.training.run import Run
from bertkit.training.run_folder import SCORES
from bertkit.training.run_task import write_task

RULES = {
    "amounts": "sequences and tokens are counted from the batches, summed over ranks; padding counts as nothing",
    "pauses": "evaluations and checkpoints count in no rate but `sequences_per_second_whole`",
    "not timed": "reading and encoding the data, making the engine, the final scoring of a best checkpoint",
    "mfu": "model FLOPs by formula (3 x forward); neither padding nor recomputation counts",
    "step time": "between two waits for the device, over the updates between them; first rank",
    "evaluation times": "until the evaluation began, on the first rank; its own time is in the next one's",
    "communication": "what updates waited for the exchange of gradients, slower ranks included",
}


@dataclass(frozen=True)
class Results:
    """What the record is made from, besides the run."""

    resolved: Resolved
    objective: Objective
    environment: Mapping[str, Any]
    reading: Reading  # over all ranks
    meter: Meter
    peak: Peak
    peak_memory: int | None  # bytes of one device
    energy: Energy


def measure(
    run: Run, objective: Objective, engine: Engine, meter: Meter, energy: Energy, first_peak: Peak, resolved: Resolved
) -> Results:
    """What was measured, over all ranks. A collective."""
    reading = over_ranks(meter.reading(), engine.gather)
    hardware = run.environment["hardware"] | {"device": collect.device(engine, run.world)}  # its clock now
    memory = collect.peak_memory(engine.peak_memory(), engine.gather)  # before the peak's own matrices
    return Results(
        resolved=resolved,
        objective=objective,
        environment={**run.environment, "hardware": hardware},
        reading=reading,
        meter=meter,
        peak=collect.best_peak([first_peak, engine.peak()]),
        peak_memory=memory,
        energy=energy,
    )


def write_results(run: Run, results: Results, answered: list[Answered], weights: Arrays) -> dict[str, Any]:
    """Write model, answers and record into the run's folder, the record last. Returns the record.

    On ranks but the first nothing is written.
    """
    made = make_record(run, results)
    if not run.world.is_first:
        return made
    if not results.reading.updates and (run.folder / NAME).exists():  # nothing was left to measure
        with contextlib.suppress(UserError):
            before = load(run.folder).mapping
            made |= {name: before[name] for name in ("method", "throughput", "time", "memory", "energy")}
    setup = results.objective.setup
    source, task = setup.source, setup.task
    write_model(run.folder, source.config, task.head, task.labels, source.vocabulary, weights)
    for each in answered:
        each.write(run.folder / "predictions", "-dev")
    _write_scores(run, results, answered)
    return write(run.folder / NAME, made)


def _write_scores(run: Run, results: Results, answered: list[Answered]) -> None:
    """What lies behind the dev set's metrics; and where it was asked for, the task as it was fitted on it."""
    recipe, setup = results.resolved.recipe, results.objective.setup
    found = [each.details() for each in answered if each.details is not None]
    if not found:
        return
    write_json(run.folder / SCORES, {"task": setup.task.name, "metric": setup.task.primary, "parts": found})
    fitted = calibrated(setup.task, found[0]) if recipe.evaluation.calibrate else None
    if fitted is not None:
        write_task(run.folder, fitted, recipe, setup.source.vocabulary, collect.versions())


def make_record(run: Run, results: Results) -> dict[str, Any]:
    """The whole record; losses stand in it however many they are."""
    setup, progress, reading = results.objective.setup, run.progress, results.reading
    metrics = {name: float(value) for name, value in run.metrics.items()}
    percent = setup.task.head.kind == "span"
    environment = dict(results.environment)
    environment["hardware"] = environment["hardware"] | {"cpu_mhz": cpu_mhz()}
    return blank("train") | {
        **environment,
        **collect.settings(results.resolved.flat(), results.resolved.sources),
        "backend": {"name": setup.target.backend.name, "reason": setup.target.choice.reason},
        "precision": {"name": setup.target.precision, "reason": setup.target.reason},
        "model": _model(results),
        **_of_course(results, environment),
        "method": {
            "warmup_rule": WARMUP_RULE,
            "warmup_updates": results.meter.warmup if reading.updates else None,
            "rules": RULES | _reached(run, results) | _ended_early(run),
        },
        "metrics": metrics,
        "units": {name: unit(name, percent) for name in metrics},
        "seeds": [{"seed": setup.job.seed, "metrics": metrics, "folder": None, "shard": setup.shard or None}],
        "evaluations": [dict(entry) for entry in progress.evaluations],
        "best": {"step": progress.best_step, "metric": setup.task.primary, "value": progress.best_score}
        if progress.best_step
        else None,
        # nine digits give every fp32 number back exactly
        "losses": [float(f"{value:.9g}") for value in progress.losses],
        "updates": progress.step,
        "callbacks": dict(run.added),
        **_measured(run, results),
    }


def _of_course(results: Results, environment: Mapping[str, Any]) -> dict[str, Any]:
    told = dict(results.objective.describe())
    return told | {"fairness": as_computed(told["fairness"], environment["hardware"]["engine"])}


def _measured(run: Run, results: Results) -> dict[str, Any]:
    reading, meter = results.reading, results.meter
    all_legs = run.progress.train_seconds
    steps = collect.step_of(meter.updates_between_waits)
    return {
        "throughput": collect.throughput(reading, results.peak, run.world),
        "time": collect.times(reading, run.world, meter.step_seconds, steps, all_legs),
        "memory": {"peak_bytes_per_device": results.peak_memory, "at_most": False},
        "energy": collect.energy(reading, results.energy),
    }


def _reached(run: Run, results: Results) -> dict[str, str]:
    """When the accuracy that was aimed at was first reached, in words."""
    target = results.objective.target(run.steps)
    for entry in run.progress.evaluations if target else ():
        wanted = results.objective.target(entry["step"])
        if wanted and entry["metrics"].get("mlm_accuracy", 0.0) >= wanted:
            samples = results.objective.samples(entry["step"])
            seconds = f"{entry['training_seconds']:g} s of training, {entry['wall_seconds']:g} s with pauses"
            return {f"mlm_accuracy {target:g}": f"reached after {samples:,} samples, {seconds}"}
    return {f"mlm_accuracy {target:g}": "not reached"} if target else {}


def _ended_early(run: Run) -> dict[str, str]:
    if not run.finished or run.step == run.steps:
        return {}
    return {"ended early": f"after update {run.step:,} of {run.steps:,}: {run.finished}"}


def unit(metric: str, percent: bool) -> str:
    """What a metric is counted in: SQuAD's are per cent, GLUE's fractions or correlations."""
    words = metric.split("_")
    if words[0] in ("mcc", "pearson", "spearman"):
        return "correlation"
    if words[-1] in ("loss", "kl"):
        return "nats"
    if words[0] in ("mae", "rmse"):
        return "unit of the target"
    if words[-1] in ("total", "thresh"):
        return "count" if words[-1] == "total" else "difference of logits"
    return "percent" if percent else "fraction"


def _model(results: Results) -> dict[str, Any]:
    source, fit = results.objective.setup.source, results.objective.setup.fit
    return {
        "name": source.name,
        "parameters": sum(int(array.size) for array in fit.weights.values()),
        "missing_at_start": list(fit.missing),
        "unexpected_at_start": list(fit.unexpected),
    }
