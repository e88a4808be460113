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
from bertkit.records.parts import (
    Best,
    CaseRecord,
    ChoiceRecord,
    Data,
    EnergyRecord,
    EvaluationRecord,
    Git,
    Hardware,
    LossFile,
    Memory,
    Method,
    ModelRecord,
    Seed,
    Selected,
    Throughput,
    Time,
)

SCHEMA = 2
Scalar = Text | Whole | Number | Flag | None
Kind = Literal["train", "bench", "published"]
Status = Literal["measured", "does not fit", "timed out", "failed"]


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
        default_factory=dict, description="what the run's callbacks added, each under a key of its own"
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
