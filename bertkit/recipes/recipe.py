"""The recipe: every setting of a run, by section. Files of it are TOML.

`KEYS` is the one table that `--set`, `--config`, environment variables and `config show` are made from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_type_hints

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bertkit.errors import UserError, nearest, one_line
from bertkit.recipes.sections import (
    STRICT,
    AnswersSection,
    CheckpointSection,
    DataSection,
    DistillSection,
    EvaluationSection,
    LogSection,
    LossScalingSection,
    LossSection,
    ModelSection,
    OptimizerSection,
    Phase2Section,
    RanksSection,
    ScheduleSection,
    TableSection,
    Text,
    TrainSection,
    Whole,
)

Value = str | int | float | bool | None
SHOWN = 80  # characters of a wrong value in a message


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """Every setting of a run."""

    backend: Text = Field(default="auto", description="backend to run on: a name, or auto for the best that is ready")
    task: Text = Field(default="", description="task; `bertkit data list` names them")
    precision: Literal["auto", "fp32", "tf32", "bf16", "fp16", "int8"] = Field(
        default="auto",
        description="of the dense layers; auto: bf16 where the chip has it, else fp32; int8 only answers",
    )
    seed: Whole = Field(default=1, description="fixes the new head's start, the order of the data and dropout")
    output: Text = Field(default="", description="the run's folder; empty: runs/<task>-<model>-seed<seed>")
    offline: bool = Field(default=False, description="true: fetch neither a model nor data")
    model: ModelSection = ModelSection()
    data: DataSection = DataSection()
    table: TableSection = TableSection()
    train: TrainSection = TrainSection()
    optimizer: OptimizerSection = OptimizerSection()
    loss: LossSection = LossSection()
    distill: DistillSection = DistillSection()
    loss_scaling: LossScalingSection = LossScalingSection()
    schedule: ScheduleSection = ScheduleSection()
    phase2: Phase2Section = Phase2Section()
    evaluation: EvaluationSection = EvaluationSection()
    answers: AnswersSection = AnswersSection()
    checkpoint: CheckpointSection = CheckpointSection()
    log: LogSection = LogSection()
    ranks: RanksSection = RanksSection()
    device: Mapping[str, str | int | float | bool] = Field(
        default_factory=dict, description="settings of one backend; `bertkit backends NAME` lists them"
    )


@dataclasses.dataclass(frozen=True)
class Key:
    """One setting."""

    name: str  # dotted
    default: Value
    description: str


def _keys(section: type, prefix: str = "") -> Iterator[Key]:
    hints = get_type_hints(section)
    fields = section.__pydantic_fields__  # type: ignore[attr-defined]
    for name, info in fields.items():
        if dataclasses.is_dataclass(hints[name]):
            yield from _keys(hints[name], f"{prefix}{name}.")
        elif name != "device":
            yield Key(f"{prefix}{name}", info.default, info.description or "")


KEYS: Mapping[str, Key] = {key.name: key for key in _keys(Recipe)}
DEVICE = "device."  # keys below it belong to the chosen backend, which checks them


def check_key(name: str, where: str) -> None:
    """Raises UserError for an unknown dotted key, naming the nearest."""
    if name not in KEYS and not name.startswith(DEVICE):
        raise UserError(f"{where}: there is no setting {one_line(repr(name), SHOWN)}", nearest(name[:SHOWN], KEYS))


def build(values: Mapping[str, Value], sources: Mapping[str, str]) -> Recipe:
    """The recipe with these values by dotted key, checked. `sources` says where each came from, for the error."""
    nested: dict[str, Any] = {}
    for name, value in values.items():
        *path, leaf = name.split(".", 1)
        (nested.setdefault(path[0], {}) if path else nested)[leaf] = value
    try:
        return TypeAdapter(Recipe).validate_python(nested)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"] if part in name_parts(first["loc"]))
        shown = one_line(repr(first["input"]), SHOWN)
        raise UserError(
            f"{sources.get(name, 'the recipe')}: {one_line(name, SHOWN)} = {shown}: {_reason(first['msg'])}",
            KEYS[name].description if name in KEYS else "",
        ) from None


def name_parts(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """The parts of pydantic's location that name the key: the first two; the rest is the type that was tried."""
    return location[:2] if f"{location[0]}" not in KEYS else location[:1]


def _reason(message: str) -> str:
    return message[0].lower() + message[1:]


def flatten(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables -> dotted keys."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def to_flat(recipe: Recipe) -> dict[str, Value]:
    """Every setting of the recipe by dotted key."""
    return flatten(dataclasses.asdict(recipe))
