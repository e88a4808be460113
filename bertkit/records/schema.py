"""Record schema 2, written once: `schemas/record-2.json` is made of these classes, and a test holds them equal.

Every key stands in every record. null means "not known", never 0; seconds, bytes, joules and FLOP/s are what the names
say, the descriptions give the rest. A reader refuses keys that it does not know, so whatever is added raises SCHEMA.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from bertkit.files.disk import write_json
from bertkit.records.fields import STRICT, Fairness, Flag, Number, Sha, Text, Whole

SCHEMA = 2
Scalar = Text | Whole | Number | Flag | None
Kind = Literal["train", "bench", "published"]
Status = Literal["measured", "does not fit", "timed out", "failed"]


Percentiles = Mapping[Text, Number | None]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Git:
    commit: Text
    changed: Flag = Field(description="whether tracked files differ from the commit")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ChoiceRecord:
    name: Text
    reason: Text | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Device:
    """One of the devices that computed; they are alike."""

    kind: Literal["cpu", "accelerator"] | None
    model: Text | None
    count: Whole | None = Field(description="devices that computed, one a rank; `per device` divides by it")
    memory_bytes: Whole | None = Field(description="of one accelerator; of a CPU see the hardware's")
    driver: Text | None
    clock_mhz: Number | None = Field(description="as read at the end of the run")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Hardware:
    device: Device
    host: Text | None
    hosts: list[Text] | None = Field(description="of each rank, in rank order")
    system: Text | None
    machine: Text | None = Field(description="instruction set")
    container: Flag | None
    cpu_model: Text | None
    sockets: Whole | None = Field(description="with a CPU that this process may use")
    cores: Whole | None = Field(description="physical ones that this process may use")
    logical_cpus: Whole | None = Field(description="of the whole host")
    cpu_mhz: Number | None = Field(description="mean over the CPUs, as read at the end of the run")
    cpu_mhz_most: Number | None = Field(description="the highest that the CPU allows")
    memory_bytes: Whole | None = Field(description="physical memory of the host")
    processes: Whole | None
    launcher: Text | None
    engine: Mapping[Text, Text] = Field(description="what the engine chose and why: kernels, dtypes, threads, layout")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelRecord:
    name: Text | None
    parameters: Whole | None
    missing_at_start: list[Text] = Field(description="parameters that the weight file lacked, so new")
    unexpected_at_start: list[Text] = Field(description="parameters of the weight file that were not used")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataRecord:
    """One file of data, or lengths drawn from a distribution."""

    name: Text
    file: Text | None
    sha256: Sha | None
    features_sha256: Sha | None
    examples: Whole | None = Field(description="in the file")
    sequences: Whole | None = Field(description="made of them")
    mean_tokens: Number | None = Field(description="of a sequence, without padding")
    faults: list[Text] = Field(description="what was wrong in the file and left out")
    tokens: Percentiles = Field(description="of a sequence: p50, p90, p99, p100")
    mean_masked: Number | None = Field(description="masked positions of a sequence; null: no masking")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Data:
    task: Text | None
    train: DataRecord | None
    evaluation: list[DataRecord]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Method:
    """How it was measured."""

    warmup_rule: Text | None
    warmup_updates: Whole | None = Field(description="updates or calls at the start that count in no rate")
    rules: Mapping[Text, Text] = Field(description="the other rules, in words")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluationRecord:
    step: Whole
    training_seconds: Number | None = Field(
        description="wall time of training until then, over all sessions of the run"
    )
    wall_seconds: Number | None = Field(description="the same with evaluations and checkpoints in it")
    metrics: Mapping[Text, Number | None]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Best:
    step: Whole
    metric: Text
    value: Number | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Seed:
    """One seed's scores."""

    seed: Whole | None
    metrics: Mapping[Text, Number | None]
    folder: Text | None = Field(description="where several were trained in one run: this one's, within the run's")
    shard: Text | None = Field(description="k/n if trained on a share of the data")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Selected:
    """Where the result is the best of several: its score flatters, the mean over `seeds` does not."""

    of: Whole
    seed: Whole | None
    metric: Text
    mean: Number | None
    standard_deviation: Number | None
    note: Text


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LossFile:
    """Losses that are too many for the record: a JSON list beside it."""

    file: Text
    sha256: Sha
    count: Whole


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Counted:
    updates: Whole | None
    sequences: Whole | None = Field(description="real ones; a packed row counts as what it holds")
    tokens: Whole | None = Field(description="without padding")
    slots: Whole | None = Field(description="token places that were computed, padding included")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Throughput:
    """Sums over all ranks, over the slowest rank's wall time; warm-up, evaluation and checkpoints left out."""

    sequences_per_second: Number | None
    sequences_per_second_per_device: Number | None
    tokens_per_second: Number | None
    tokens_per_second_per_device: Number | None
    sequences_per_second_whole: Number | None = Field(
        description="of the whole loop: warm-up, evaluations and checkpoints in it"
    )
    sequences_per_second_core: Number | None = Field(description="without the time spent waiting for data")
    padding_efficiency: Number | None = Field(description="real tokens over token places")
    model_flops_per_second: Number | None = Field(description="by formula; padding and recomputation do not count")
    mfu: Number | None = Field(
        description="model FLOPs over `peak_flops_per_device` x devices; null above 1, `peak_source` then says so"
    )
    peak_flops_per_device: Number | None
    peak_source: Text | None
    counted: Counted
    seconds: Number | None = Field(description="that the counted amounts took")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Time:
    """Wall seconds of the slowest rank, of this session of the run; training is waiting + compute + communication."""

    whole_seconds: Number | None = Field(description="from the loop's first update asked for to its end")
    warmup_seconds: Number | None
    training_seconds: Number | None = Field(description="counted: after warm-up, without the pauses below")
    waiting_for_data_seconds: Number | None
    compute_seconds: Number | None
    communication_seconds: Number | None = Field(description="0 with one rank; null where ranks cannot tell")
    evaluation_seconds: Number | None
    checkpoint_seconds: Number | None
    training_seconds_of_all_legs: Number | None
    step_of: Text | None = Field(
        description="what `step_seconds` are of: an update, a call, a request, or a mean of updates"
    )
    step_seconds: Percentiles = Field(description="by nearest rank: p50, p90, p95, p99, p100")
    steps_timed: Whole | None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Memory:
    peak_bytes_per_device: Whole | None = Field(description="of the rank that needed most")
    at_most: Flag = Field(description="an earlier case of the same process may have set it")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EnergyRecord:
    joules: Number | None = Field(description="over all hosts, during `seconds`; null: not known")
    seconds: Number | None
    sequences: Whole | None = Field(description="computed in these seconds")
    scope: Text | None = Field(description="what the counters cover, as in `CPU packages`")
    source: Text = Field(description="how it was read, or why it was not")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CaseRecord:
    """Which cell of a measurement's grid."""

    model: Text
    lengths: Text
    batch_size: Whole = Field(description="on each process")
    loss: Number | None = Field(description="at the last update, where it trains")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RunRecord:
    """One run, one cell of a measurement, or one published figure: all have these keys."""

    schema: Literal[2]
    kind: Kind
    sha256: Sha | None = Field(description="of the record without this key, in canonical JSON")
    status: Status
    reason: Text | None = Field(description="of another status than measured")
    command: Text | None
    started: Text | None = Field(description="UTC, ISO 8601")
    git: Git | None
    versions: Mapping[Text, Text]
    config: Mapping[Text, Scalar] = Field(description="the resolved configuration")
    config_sources: Mapping[Text, Text] = Field(description="of the settings that are no default, where they stood")
    hardware: Hardware
    backend: ChoiceRecord | None
    precision: ChoiceRecord | None
    model: ModelRecord
    data: Data
    fairness: Fairness
    method: Method
    case: CaseRecord | None
    published: Mapping[Text, Scalar | list[Text]] | None = Field(description="of a published figure: its source")
    metrics: Mapping[Text, Number | None] = Field(description="of the weights that are the result")
    units: Mapping[Text, Text] = Field(description="of the metrics: fraction, percent, correlation, nats")
    seeds: list[Seed] = Field(description="every seed's scores, the result's among them")
    selected: Selected | None
    majority_class: Mapping[Text, Number | None] | None = Field(
        description="what always answering the most frequent class scores"
    )
    evaluations: list[EvaluationRecord]
    best: Best | None
    updates: Whole | None
    losses: list[Number | None] | None = Field(description="of every update from the first; null: see `loss_file`")
    loss_file: LossFile | None
    throughput: Throughput
    time: Time
    memory: Memory
    energy: EnergyRecord
    callbacks: Mapping[Text, Any] = Field(
        default_factory=dict,
        description="what the run's callbacks added, each under a key of its own; of a server under load: `serving`",
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Collection:
    """Several records in one file, as `bertkit bench` writes: each is whole in itself, with a hash of its own."""

    schema: Literal[2]
    kind: Literal["collection"]
    records: list[RunRecord]


@functools.cache
def _adapter() -> TypeAdapter[Any]:
    return TypeAdapter(RunRecord)  # made on first use: it takes some ms


def check(value: Any) -> None:
    """Raises pydantic's ValidationError where `value` is not one record of this schema."""
    _adapter().validate_python(value)


def json_schema() -> dict[str, Any]:
    """What `bertkit/records/schemas/record-2.json` holds."""
    made = TypeAdapter(RunRecord | Collection).json_schema()
    about = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"bertkit-record-{SCHEMA}",
        "title": "A run record of bertkit, or a collection of them",
        "$comment": "Made from bertkit/records/schema.py. null means: not known.",
    }
    return about | made


def write_schema() -> None:
    """Write the file anew, after a change of these classes; in a checkout."""
    path = Path(str(resources.files("bertkit").joinpath("records", "schemas", f"record-{SCHEMA}.json")))
    write_json(path, json_schema())


def blank(kind: Kind) -> dict[str, Any]:
    """A record in which nothing is known yet: fill in what is. It fits the schema as it stands."""
    return _blank(RunRecord) | {"schema": SCHEMA, "kind": kind, "status": "measured"}


def _blank(of: type) -> dict[str, Any]:
    return {name: _nothing(hint) for name, hint in get_type_hints(of).items()}


def _nothing(hint: Any) -> Any:
    """The emptiest value of a field: null where it may be, else an empty list, mapping or record."""
    if type(None) in get_args(hint):
        return None
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _blank(hint)
    return {list: [], Mapping: {}, bool: False}.get(get_origin(hint) or hint, "")
