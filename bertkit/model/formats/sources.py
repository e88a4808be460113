"""A checkpoint of any system as one thing: weights by our names, a training's moments, configuration, vocabulary.

tf1: PREFIX.index and its data shards. hf: a folder with model.safetensors or pytorch_model.bin; a run's folder is one.
pt: what a training script saved. run: a checkpoint of a run, step-….safetensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, read_sealed_arrays
from bertkit.files.inputs import exists, is_folder, read_object
from bertkit.model.checkpoint import check_tensors
from bertkit.model.config import Arrays
from bertkit.model.formats.places import Kind, find_kind
from bertkit.model.formats.tf1 import FIRST, SECOND, STEP, read_tf1
from bertkit.model.formats.torch_files import read_state, untied
from bertkit.model.tokenizer_files import vocabulary_file
from bertkit.model.weights import read_hf

MOMENTS_FILE = "moments.safetensors"  # beside a folder's model, under the names of the engines' checkpoints
IN_RUN = "model."  # before a parameter's name in a run's checkpoint
CONFIGS: Mapping[Kind, tuple[str, ...]] = {
    "tf1": ("bert_config.json", "config.json"),
    "pt": ("bert_config.json", "config.json"),
    "hf": ("config.json", "bert_config.json"),
    "run": ("config.json",),
}


@dataclass(frozen=True)
class Contents:
    """What a checkpoint holds."""

    kind: Kind
    path: Path  # the file or prefix that was read
    weights: Arrays  # dtypes as stored
    moments: Arrays = field(default_factory=dict)  # FIRST and SECOND before the names, and STEP
    unknown: Arrays = field(default_factory=dict)  # by their own names: no parameter of a BERT
    notes: tuple[str, ...] = ()  # what was left out or chosen
    config: Path | None = None
    vocabulary: Path | None = None


def read_contents(source: Path, moments: bool = False, config: str = "", vocab: str = "") -> Contents:
    """What SRC holds; `config` and `vocab` take the place of its own files.

    Raises UserError, in one line with the file, for what is missing or damaged.
    """
    kind, path = find_kind(source)
    folder = path if is_folder(path) else path.parent.parent if kind == "run" else path.parent
    own = next((folder / name for name in CONFIGS[kind] if exists(folder / name)), None)
    words = vocabulary_file(folder)
    files = (Path(config) if config else own, Path(vocab) if vocab else words if exists(words) else None)
    if kind == "tf1":
        read = read_tf1(path, moments)
        notes = [f"left out: {_many(read.left_out)}"] if read.left_out else []
        notes += [f"left out, since no BERT has it: {text}" for text in read.passed]
        return Contents(kind, path, read.weights, read.moments, read.unknown, tuple(notes), *files)
    if kind == "pt":
        state = read_state(path, moments)
        return Contents(kind, path, state.weights, state.moments, {}, state.notes, *files)
    if kind == "run":
        return Contents(
            kind, path, *_read_run(path, moments), {}, () if moments else ("left out: the moments",), *files
        )
    stored = read_hf(path)
    beside = folder / MOMENTS_FILE
    state_of = read_sealed_arrays(beside, needed=False)[0] if moments and exists(beside) else {}
    notes = [
        *stored.warnings,
        *stored.notes,
        *([f"left out: {MOMENTS_FILE}"] if exists(beside) and not moments else []),
    ]
    return Contents(kind, stored.path, untied(stored.arrays, str(stored.path)), state_of, {}, tuple(notes), *files)


def _read_run(path: Path, moments: bool) -> tuple[Arrays, Arrays]:
    """A run's checkpoint: its parameters and, if wanted, its moments."""
    check_tensors(path)
    arrays, _ = read_arrays(path)
    weights = {name.removeprefix(IN_RUN): array for name, array in arrays.items() if name.startswith(IN_RUN)}
    if not weights:
        raise UserError(f"{path}: holds no parameters of a run", "give a checkpoint that `bertkit train` wrote")
    state = {name: array for name, array in arrays.items() if name.startswith((FIRST, SECOND)) or name == STEP}
    return weights, state if moments else {}


def _many(names: tuple[str, ...]) -> str:
    """The names, or the first few and how many more."""
    shown = ", ".join(names[:3])
    return f"{shown} and {len(names) - 3} more variables of a training" if len(names) > 4 else ", ".join(names)


def read_json(path: Path) -> dict[str, Any]:
    """A configuration's keys as they stand there."""
    return read_object(path, "give a BERT's config with --config")


def count(arrays: Mapping[str, np.ndarray]) -> int:
    """Numbers in all arrays."""
    return sum(array.size for array in arrays.values())
