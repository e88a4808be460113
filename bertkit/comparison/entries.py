"""One record in the terms of comparing: what must be equal, what it stands for, what it measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.comparison.figures import DEV_SECONDS, FIGURES, PARAMETERS, PER_EXAMPLE
from bertkit.errors import UserError
from bertkit.records import fields
from bertkit.records.files import NAME, Record

# Settings that may differ between two seeds of one system: where things stand, and what is written how often. What of
# them matters (the start, the vocabulary, the data) is compared by its hash.
FREE = (
    "seed", "output", "backend", "data.dir", "data.cache", "data.train_file", "data.dev_file", "model.name",
    "model.vocab", "model.start", "offline", "log.", "checkpoint.every", "checkpoint.keep", "ranks.timeout",
)  # fmt: skip
# What goes with the number of devices: settings, and facts of fairness. A layout is compared as it came out.
SCALED = ("train.batch_size", "train.micro_batch_size", "ranks.", "model.layout", "schedule.warmup_steps")


@dataclass(frozen=True)
class Conditions:
    """What a record was measured on and of."""

    kind: str  # train, bench or published
    backend: str | None
    device: str | None  # model of one device
    devices: int | None
    hosts: int | None
    precision: str | None
    model: str | None
    task: str | None
    batch: int | None  # sequences of an update over all devices
    length: int | None
    mean_tokens: float | None  # of a sequence, without padding
    concurrency: int | None  # requests in flight at a server; None: measured without one, or in an open loop


@dataclass(frozen=True)
class EvaluationPoint:
    """The dev set's scores after some updates."""

    step: int
    seconds: float | None  # of training until then
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class TaughtBy:
    """The teacher of a distillation, as its student's record has it."""

    name: str
    sha256: str  # of its weights
    metrics: Mapping[str, float]  # on the student's dev set; empty: not known
    figures: Mapping[str, float | None]  # those of the dev set and the model, by Figure.key


@dataclass(frozen=True)
class Entry:
    """One record."""

    path: Path
    name: str  # its folder, or the file and which of its records
    label: str  # as given on the command line by NAME=; else empty
    seed: int | None
    place: Conditions
    facts: Mapping[str, Any]  # Fact.name -> value; None: not known
    identity: str  # equal where two entries differ in nothing but the seed
    kin: str  # equal where they differ in nothing but the seed and the number of devices
    figures: Mapping[str, float | None]  # by Figure.key, in Figure.unit
    scores: Sequence[Mapping[str, float | None]]  # the metrics of every seed in it
    units: Mapping[str, str]  # of the metrics: fraction, percent, correlation
    losses: np.ndarray  # (updates,) NaN where one is not known; empty: none is
    evaluations: Sequence[EvaluationPoint]
    watts: float | None  # mean over the measured seconds
    layout: str | None
    loss_scaling: str | None  # of fp16
    peak: float | None  # FLOP/s of one device that MFU is taken against
    step_of: str | None  # what step times are of
    versions: Mapping[str, str]
    teacher: TaughtBy | None
    timed: Mapping[str, str | None]  # what must be equal where seconds are compared, in words -> value
    marks: Sequence[str]  # what must be said beside its figures


def entry(record: Record, label: str = "") -> Entry:
    """Read a record. What it does not hold stays None."""
    made = record.mapping
    losses, missing = _losses(record)
    place = _place(made)
    layout = at(made, "hardware.engine.layout") or made["config"].get("model.layout")
    facts = {fact.name: fact.of(made) for fact in fields.FACTS}
    alike = {fact.name: facts[fact.name] for fact in fields.FACTS if not fact.scaled}
    scores = [one["metrics"] for one in made["seeds"]] or ([made["metrics"]] if made["metrics"] else [])
    return Entry(
        path=record.path,
        name=_name(record),
        label=label,
        seed=made["config"].get("seed"),
        place=place,
        facts=facts,
        identity=_hash([label, place.devices, place.hosts, place.batch, facts, _kept(made, FREE), *_what(place, made)]),
        kin=_hash([alike, layout, _kept(made, FREE + SCALED), *_what(place, made)]),
        figures={figure.key: _scaled(at(made, figure.path), figure.scale) for figure in FIGURES}
        | {PER_EXAMPLE.key: _per_example(at(made, DEV_SECONDS.path), made)},
        scores=scores,
        units=made["units"],
        losses=losses,
        evaluations=[
            EvaluationPoint(one["step"], one["training_seconds"], one["metrics"]) for one in made["evaluations"]
        ],
        watts=_watts(made["energy"]),
        layout=layout,
        loss_scaling=_loss_scaling(place, made["config"]),
        peak=at(made, "throughput.peak_flops_per_device"),
        step_of=at(made, "time.step_of"),
        versions=made["versions"],
        teacher=_teacher(made),
        timed=_timed(made, place),
        marks=[*_marks(record), *missing],
    )


def at(made: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where a part of it is missing."""
    value: Any = made
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _scaled(value: Any, scale: float) -> float | None:
    """None, too, of what is no number: `callbacks` may hold anything."""
    return value * scale if isinstance(value, int | float) and not isinstance(value, bool) else None


def _per_example(seconds: Any, made: Mapping[str, Any]) -> float | None:
    """In milliseconds."""
    examples = at(made, "fairness.evaluation_examples")
    return _scaled(seconds, 1e3 / examples) if examples else None


def _teacher(made: Mapping[str, Any]) -> TaughtBy | None:
    told = at(made, "callbacks.distillation")
    digest = at(made, "callbacks.distillation.teacher_sha256")
    if not isinstance(digest, str) or not digest:
        return None
    metrics, seconds = told.get("teacher_metrics"), told.get("teacher_dev_seconds")
    known = metrics.items() if isinstance(metrics, Mapping) else ()
    return TaughtBy(
        name=Path(str(told.get("teacher") or digest[:8])).name,
        sha256=digest,
        metrics={name: value for name, found in known if (value := _scaled(found, 1.0)) is not None},
        figures={
            PARAMETERS.key: _scaled(at(told, "parameters.teacher"), PARAMETERS.scale),
            DEV_SECONDS.key: _scaled(seconds, DEV_SECONDS.scale),
            PER_EXAMPLE.key: _per_example(seconds, made),
        },
    )


def _timed(made: Mapping[str, Any], place: Conditions) -> dict[str, str | None]:
    """Where and how seconds were measured. The model of the device alone does not say that it is the same host."""
    hosts, processes = at(made, "hardware.hosts"), at(made, "hardware.processes")
    threads = at(made, "hardware.engine.threads")
    return {
        "host": ", ".join(sorted(set(hosts))) if hosts else at(made, "hardware.host"),
        "device": place.device,
        "backend": place.backend,
        "number of processes": None if processes is None else str(processes),
        "threads": threads.partition(":")[0] if threads else None,  # the reason follows
        "precision": place.precision,
    }


def _watts(energy: Mapping[str, Any]) -> float | None:
    return energy["joules"] / energy["seconds"] if energy["joules"] is not None and energy["seconds"] else None


def _name(record: Record) -> str:
    made, case = record.mapping, record.mapping["case"]
    path = record.path.parent if record.path.name == NAME else record.path.with_suffix("")
    if case is None or record.place is None:  # a suite's cell: its file is named after it
        return str(path)
    model = case["model"].rstrip("/").rsplit("/", 1)[-1]
    config, precision = made["config"], at(made, "precision.name")
    load = [f"{sign}{config[key]:g}" for key, sign in (("concurrency", "c"), ("request_rate", "r")) if config.get(key)]
    parts = [model, *([precision] if precision else []), case["lengths"], f"b{case['batch_size']}", *load]
    return f"{path}: {' '.join(parts)}"


def _place(made: Mapping[str, Any]) -> Conditions:
    hosts = at(made, "hardware.hosts")
    model = at(made, "model.name")
    return Conditions(
        kind=made["kind"],
        backend=at(made, "backend.name"),
        device=_device(made["hardware"]),
        devices=at(made, "hardware.device.count"),
        hosts=len(set(hosts)) if hosts else None,
        precision=at(made, "precision.name"),
        model=Path(model).name if model else None,
        task=at(made, "fairness.task"),
        batch=at(made, "fairness.global_batch"),
        length=at(made, "fairness.sequence_length"),
        mean_tokens=at(made, "data.train.mean_tokens"),
        concurrency=at(made, "config").get("concurrency"),
    )


def _device(hardware: Mapping[str, Any]) -> str | None:
    """Model of what computed; of an accelerator that does not tell, not that of the CPU beside it."""
    device = hardware["device"]
    return device["model"] or (hardware["cpu_model"] if device["kind"] != "accelerator" else None)


def _loss_scaling(place: Conditions, config: Mapping[str, Any]) -> str | None:
    if place.precision != "fp16" or "loss_scaling.initial" not in config:
        return None
    start = f"{config['loss_scaling.initial']:g}"
    if not config["loss_scaling.dynamic"]:
        return f"by {start} throughout"
    return f"from {start} on, doubled after {config['loss_scaling.grow_after']} updates"


def _what(place: Conditions, made: Mapping[str, Any]) -> list[Any]:
    """What is measured, apart from the facts of fairness and the number of devices."""
    of_model = None if made["fairness"]["start_weights_sha256"] else place.model
    case = {name: value for name, value in (made["case"] or {}).items() if name in ("model", "lengths")}
    return [place.kind, place.backend, place.device, place.precision, of_model, case]


def _kept(made: Mapping[str, Any], left_out: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in made["config"].items() if not key.startswith(left_out)}


def _hash(parts: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _losses(record: Record) -> tuple[np.ndarray, list[str]]:
    """(losses, what to say of them). A file of losses that is gone is no reason to leave the record out."""
    try:
        found = record.losses()
    except UserError as error:
        return np.empty(0), [str(error)]
    return np.array([np.nan if value is None else value for value in found or ()], np.float64), []


def _marks(record: Record) -> list[str]:
    made, marks = record.mapping, []
    if made["status"] != "measured":
        marks.append(f"{made['status']}: {made['reason'] or 'no reason is given'}")
    if record.edited:
        marks.append("was edited after it was written: its hash does not match")
    if made["selected"] is not None:
        of = made["selected"]["of"]
        marks.append(f"its result is the best of {of}, selected on the evaluation set; the mean of all is shown")
    return marks
