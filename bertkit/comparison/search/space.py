"""The table [search]: which settings are searched, and what is tried of each. Nothing here knows Optuna.

[search]
"optimizer.learning_rate" = {log = [1e-5, 1e-4]}
"model.hidden_dropout" = {range = [0.0, 0.3]}
"train.epochs" = {choices = [2, 3, 4]}
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.errors import UserError, nearest, one_line
from bertkit.files.inputs import kind, read_toml
from bertkit.recipes.recipe import DEVICE, KEYS, SHOWN, Value, build, check_key, flatten, to_flat
from bertkit.recipes.resolve import Resolved

TABLE = "search"
FORMS = ("choices", "range", "log")
EXAMPLE = 'write "optimizer.learning_rate" = {log = [1e-5, 1e-4]}, {range = [LOW, HIGH]} or {choices = [A, B]}'
# Settings by which the scores of two trials would not be of the same thing, or a trial not be a whole run.
FIXED = (
    "task", "output", "offline", "data.dir", "data.dev_file", "data.eval_rows", "data.eval_dir", "data.held_out",
    "evaluation.metric", "table.", "train.steps_this_run", "log.",
)  # fmt: skip


@dataclass(frozen=True)
class Dimension:
    """One setting that is searched: one of `choices`, or a number from `low` to `high`."""

    key: str
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False  # whether numbers are drawn evenly by their logarithm
    whole: bool = False

    @property
    def tried(self) -> tuple[Value, ...]:
        """All choices, or the ends of the range."""
        return self.choices or (self._number(self.low), self._number(self.high))

    def _number(self, value: float) -> int | float:
        return int(value) if self.whole else float(value)

    def told(self) -> str:
        if self.choices:
            return f"{self.key}: one of " + ", ".join(map(str, self.choices))
        what = "whole numbers" if self.whole else "numbers"
        low, high = self.tried
        return f"{self.key}: {what} from {low} to {high}" + (", by their logarithm" if self.log else "")

    def to_mapping(self) -> dict[str, Any]:
        """What stands in the table."""
        form = "choices" if self.choices else "log" if self.log else "range"
        return {form: list(self.tried)}


def read_file(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """(settings by dotted key, the table [search]) of a recipe or settings file. Raises UserError where it has none."""
    tables = read_toml(path, "name a recipe or settings file with a table [search]")
    search = tables.pop(TABLE, None)
    if not isinstance(search, Mapping):
        raise UserError(f"{path}: has no table [search]", f"add one that names what is tried: {EXAMPLE}")
    return flatten(tables), search


def parse_space(table: Mapping[str, Any], where: str) -> tuple[Dimension, ...]:
    """The settings of the table, in its order. `where`: for messages.

    Raises UserError for an unknown setting, naming the nearest, and for what is not choices or a range.
    """
    entries = list(_entries(table))
    if not entries:
        raise UserError(f"{where}: names no setting", EXAMPLE)
    for key, _ in entries:
        check_key(key, where)
        if key.startswith(FIXED):
            raise UserError(f"{where}: {key} cannot be searched: scores would not compare", "drop it")
    found = tuple(_dimension(key, said, f"{where}: {key}") for key, said in entries)
    twice = next((one.key for at, one in enumerate(found) if one.key in {each.key for each in found[:at]}), None)
    if twice:
        raise UserError(f"{where}: {twice} is named twice", "name it once")
    return found


def check_space(space: Sequence[Dimension], base: Resolved, where: str) -> tuple[Dimension, ...]:
    """The space, with whole numbers where a setting takes no others.

    Raises UserError where a setting does not take what is tried, and where an option fixes what is searched.
    """
    return tuple(_checked(one, base, where) for one in space)


def _entries(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, what is tried), of keys in quotes and of tables within tables."""
    for name, said in table.items():
        key = f"{prefix}{name}"
        section = any(known.startswith(f"{key}.") for known in KEYS) or key == DEVICE.rstrip(".")
        if isinstance(said, Mapping) and section:
            yield from _entries(said, f"{key}.")
        else:
            yield key, said


def _dimension(key: str, said: Any, where: str) -> Dimension:
    if not isinstance(said, Mapping):
        raise UserError(f"{where}: is {kind(said)}, which does not say what is tried", EXAMPLE)
    for name in said:
        if name not in FORMS:
            raise UserError(f"{where}: there is no {one_line(repr(name), SHOWN)}", nearest(str(name), FORMS))
    if len(said) != 1:
        raise UserError(f"{where}: has {' and '.join(said) or 'nothing'}", f"give one of {', '.join(FORMS)}")
    ((form, values),) = said.items()
    if not isinstance(values, list | tuple):
        raise UserError(f"{where}: {form} is {kind(values)}, not a list", EXAMPLE)
    return _of_choices(key, values, where) if form == "choices" else _of_range(key, form, values, where)


def _of_choices(key: str, values: Sequence[Any], where: str) -> Dimension:
    if not values:
        raise UserError(f"{where}: has no choices", "name at least one")
    for value in values:
        if not isinstance(value, str | int | float | bool):
            raise UserError(
                f"{where}: the choice {one_line(repr(value), SHOWN)} is {kind(value)}", "give single values"
            )
    if len({(type(value), value) for value in values}) < len(values):
        raise UserError(f"{where}: has a choice twice", "name each once")
    return Dimension(key=key, choices=tuple(values))


def _of_range(key: str, form: str, values: Sequence[Any], where: str) -> Dimension:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(values) != 2 or len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        shown = one_line(repr(list(values)), SHOWN)
        raise UserError(f"{where}: {form} = {shown} is not two numbers", f"write {{{form} = [LOW, HIGH]}}")
    low, high = numbers
    if low >= high:
        raise UserError(f"{where}: {form} goes from {low} to {high}", "give the lower end first")
    if form == "log" and low <= 0:
        raise UserError(f"{where}: log begins at {low}, which has no logarithm", "begin above 0, or use range")
    whole = all(isinstance(number, int) for number in numbers)
    return Dimension(key=key, low=low, high=high, log=form == "log", whole=whole)


def _checked(one: Dimension, base: Resolved, where: str) -> Dimension:
    source = base.sources.get(one.key, "default")
    if source in ("option", "--set"):
        raise UserError(f"{one.key} is given as {source}, and searched by {where}", "drop one of the two")
    taken = [_taken(one.key, value, base, where) for value in one.tried]
    if one.choices:
        return one
    if any(isinstance(value, bool) or not isinstance(value, int | float) for value in taken):
        raise UserError(f"{where}: {one.key} is no number", "give its values: {choices = [A, B]}")
    if all(isinstance(value, int) for value in taken) and not one.whole:
        return Dimension(key=one.key, low=int(one.low), high=int(one.high), log=one.log, whole=True)
    return one


def _taken(key: str, value: Value, base: Resolved, where: str) -> Value:
    """The value as the recipe takes it. Raises UserError where it does not."""
    return to_flat(build({**base.flat(), key: value}, {**base.sources, key: where}))[key]
