"""Pre-trained weights from a folder, fitted to the model that is asked for, with everything odd named.

Names: Hugging Face's, with or without the leading `bert.`, and what others made of them (`bertkit.weight_names`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.backend import Arrays
from bertkit.disk import read_arrays
from bertkit.errors import UserError
from bertkit.model_config import Head, ModelConfig
from bertkit.parameters import initial_value, shapes
from bertkit.tf1_weights import read_tf1, tf1_prefix
from bertkit.weight_names import HEADS, ours

BY_VOCABULARY = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
PADDED_TO = 8  # some published checkpoints pad the vocabulary's rows up to a multiple of this
READERS = "bertkit.weight_readers"  # entry points: file ending -> function(Path) -> Arrays
HF_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
NOT_PARAMETERS = (
    "bert.embeddings.position_ids",
    "cls.predictions.decoder.weight",
    "cls.predictions.decoder.bias",
)


@dataclass(frozen=True)
class Fit:
    """How the weights of a file meet the parameters of a model."""

    weights: Arrays  # complete: what the file lacks has its starting value
    missing: tuple[str, ...]  # parameters that the file lacks
    unexpected: tuple[str, ...]  # tensors of the file that the model has no use for
    reshaped: tuple[str, ...]  # head parameters of another shape, which start anew
    digest: str | None = None  # SHA-256 of the weight file; None: a random start


def read_weights(place: Path) -> tuple[Path, Arrays]:
    """The weight file of a model and its tensors under Hugging Face's names.

    `place`: a folder (model.safetensors, its sharded index, pytorch_model.bin, else the one TensorFlow 1 checkpoint in
    it), the prefix of such a checkpoint, or a `.pt` file. Raises UserError where there is none.
    """
    path, arrays = read_raw(place)
    return path, normalise(arrays)


def read_raw(place: Path) -> tuple[Path, Arrays]:
    """As `read_weights`, with names and dtypes as they are stored, save that TensorFlow's names are already ours."""
    if place.is_file():
        return place, _read_by_plug_in(place)
    whole, index, pickled = (place / name for name in HF_FILES)
    if whole.exists():
        return whole, read_arrays(whole)[0]
    if index.exists():
        return index, _sharded(index)
    if pickled.exists():
        return pickled, _read_by_plug_in(pickled)
    prefix = tf1_prefix(place)
    if prefix is not None:
        found = read_tf1(prefix)
        arrays = {name: np.array(array, order="C") for name, array in (found.weights | found.unknown).items()}
        return prefix.with_name(prefix.name + ".index"), arrays
    raise UserError(
        f"{place}: holds no model.safetensors, no pytorch_model.bin and no TensorFlow 1 checkpoint",
        "give the folder of a pre-trained BERT",
    )


def normalise(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays under the names of `bertkit.parameters`, float32, without what is no parameter."""
    named: Arrays = {}
    for name, array in arrays.items():
        new = ours(name)
        if new not in NOT_PARAMETERS:
            named[new] = np.asarray(array, np.float32) if array.dtype.kind == "f" else array
    return named


def fit_weights(arrays: Mapping[str, np.ndarray], config: ModelConfig, head: Head, seed: int, where: str) -> Fit:
    """Every parameter of the model from `arrays`, or its starting value for `seed`.

    A head of another shape starts anew; an encoder of another shape is refused, naming the tensor.
    """
    weights: Arrays = {}
    missing, reshaped = [], []
    for name, shape in shapes(config, head).items():
        array = _unpadded(name, arrays.get(name), shape)
        if array is not None and array.shape != shape:
            if not name.startswith(HEADS):
                raise UserError(
                    f"{where}: {name} is {array.shape}, but config.json asks for {shape}",
                    "config.json and weights belong to different models",
                )
            reshaped.append(name)
            array = None
        elif array is None:
            missing.append(name)
        weights[name] = initial_value(name, shape, config, seed) if array is None else array
    unexpected = tuple(sorted(set(arrays) - set(weights)))
    if not any(name in arrays for name in weights if name.startswith("bert.encoder")):
        raise UserError(
            f"{where}: holds no BERT encoder; its tensors are {', '.join(sorted(arrays)[:3])}, …",
            "give the weights of a BERT",
        )
    return Fit(weights, tuple(missing), unexpected, tuple(reshaped))


def _unpadded(name: str, array: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """The array without the rows, fewer than 8, that a training script added to round the vocabulary up."""
    if array is not None and name in BY_VOCABULARY and array.shape[1:] == shape[1:]:
        return array[: shape[0]] if shape[0] < len(array) < shape[0] + PADDED_TO else array
    return array


def _sharded(index: Path) -> Arrays:
    try:
        files = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index}: is no index of safetensors files: {error}", "copy the folder again") from None
    arrays: Arrays = {}
    for name in files:
        if not isinstance(name, str):
            raise UserError(f"{index}: is no index of safetensors files: {name!r}", "copy the folder again")
        if Path(name).name != name:  # an index must not reach outside its folder
            raise UserError(f"{index}: names the file {name!r} outside the folder", "do not use this folder")
        arrays |= read_arrays(index.parent / name)[0]
    return arrays


def _read_by_plug_in(path: Path) -> Arrays:
    arrays: Arrays = plug_in(READERS, path)(path)
    return arrays


def plug_in(group: str, path: Path) -> Callable[..., Any]:
    """The function that an installed plug-in has for files with this ending. Raises UserError where there is none."""
    ending = path.suffix.removeprefix(".")
    for point in entry_points(group=group, name=ending):
        try:
            function: Callable[..., Any] = point.load()
        except ImportError as error:
            raise UserError(f"{path}: .{ending} needs {error.name}", f"pip install {error.name}") from None
        return function
    raise UserError(f"{path}: no installed plug-in reads .{ending} files", "convert it to safetensors")
