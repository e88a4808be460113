"""A TensorFlow 1 checkpoint of a BERT in our names and the way round that we keep matrices, and back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_folder
from bertkit.model.config import Arrays
from bertkit.model.formats.names import from_tf1, tf1_slot, tf1_state, to_tf1, transposed
from bertkit.model.formats.tf1_bundle import BOOL, BundleEntry, read_bundle, read_index, write_bundle

FIRST, SECOND, STEP = "adam.first.", "adam.second.", "adam.step"  # as the engines' checkpoints name a training's state
FILES = re.compile(r"\.(index|meta|data-\d+-of-\d+)$")
KINDS = {"first": FIRST, "second": SECOND}


@dataclass(frozen=True)
class Tf1:
    """What a checkpoint holds; matrices as views, so that nothing is copied before it is needed."""

    weights: Arrays = field(default_factory=dict)
    moments: Arrays = field(default_factory=dict)
    unknown: Arrays = field(default_factory=dict)  # by TensorFlow's names: neither a BERT's nor a training's
    left_out: tuple[str, ...] = ()  # a training's state that was not read
    passed: tuple[str, ...] = ()  # variables that can be no BERT's, by name and dtype


def tf1_prefix(place: Path) -> Path | None:
    """The prefix that `place` names: itself, one of its files, or the only checkpoint of a folder. None: there is none.

    Raises UserError where a folder holds several.
    """
    if is_folder(place):
        # variables/: as TensorFlow Hub's and Saved Model's folders have it
        found = sorted(path.with_suffix("") for path in (*place.glob("*.index"), *place.glob("variables/*.index")))
        if len(found) > 1:
            raise UserError(f"{place}: holds {len(found)} checkpoints", f"name one, as {found[-1]}")
        return found[0] if found else None
    prefix = place.with_name(FILES.sub("", place.name))
    return prefix if prefix.name and exists(prefix.with_name(prefix.name + ".index")) else None


def read_tf1(prefix: Path, moments: bool = False) -> Tf1:
    """The variables, each checked by its CRC; those of a training's state only where they are asked for."""
    index = read_index(prefix)
    kinds = {name: tf1_state(name) for name in index.entries}
    passed = {name for name, entry in index.entries.items() if not kinds[name] and _no_weight(name, entry)}
    wanted = {
        name for name, kind in kinds.items() if name not in passed and (not kind or (moments and kind[0] != "other"))
    }
    weights: Arrays = {}
    state: Arrays = {}
    unknown: Arrays = {}
    for name, array in read_bundle(index, wanted.__contains__).items():
        kind, variable = kinds[name] or ("weight", name)
        ours = from_tf1(variable)
        turned = array.T if transposed(variable) and array.ndim == 2 else array
        if kind == "step":
            state[STEP] = np.array(float(array))
        elif ours is None:
            unknown[name] = array
        else:
            table, key = (weights, ours) if kind == "weight" else (state, KINDS[kind] + ours)
            if key in table:
                raise UserError(
                    f"{prefix}: {name} and another variable are both {key}", "it joins two models; give one"
                )
            table[key] = turned
    rest = tuple(name for name in index.entries if name not in wanted and name not in passed)
    return Tf1(weights, state, unknown, rest, tuple(f"{n} ({index.entries[n].dtype_name})" for n in sorted(passed)))


def _no_weight(name: str, entry: BundleEntry) -> bool:
    """Whether a variable can be no parameter: not by its name, and strings, booleans or the like by its values."""
    return from_tf1(name) is None and (not entry.is_read or entry.dtype == BOOL)


def write_tf1(prefix: Path, weights: Mapping[str, np.ndarray], moments: Mapping[str, np.ndarray]) -> list[Path]:
    """Write them under TensorFlow's names; the files written. Raises UserError for what has no name there."""
    made: Arrays = {}
    for name, array in weights.items():
        theirs = _named(name)
        made[theirs] = _turned(theirs, array)
        for kind, start in KINDS.items():
            if start + name in moments:
                made[tf1_slot(theirs, kind)] = _turned(theirs, moments[start + name])
    if STEP in moments:
        made[tf1_slot("", "step")] = np.array(int(moments[STEP]), np.int64)
    return write_bundle(prefix, made)


def _named(name: str) -> str:
    theirs = to_tf1(name)
    if theirs is None:
        raise UserError(f"{name} has no name in a TensorFlow 1 checkpoint of a BERT", "give the weights of a BERT")
    return theirs


def _turned(theirs: str, array: np.ndarray) -> np.ndarray:
    return array.T if transposed(theirs) else array
