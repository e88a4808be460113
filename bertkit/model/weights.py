"""Pre-trained weights from a folder or file, fitted to the model that is asked for, with everything odd named.

Names: Hugging Face's, with or without the leading `bert.`, and what others made of them (`formats/names.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays
from bertkit.files.inputs import is_file, read_object
from bertkit.model.config import Arrays, Head, ModelConfig
from bertkit.model.formats.file_kinds import TORCH, check_kind
from bertkit.model.formats.names import HEADS
from bertkit.model.formats.places import find_kind, weight_file
from bertkit.model.formats.tf1 import read_tf1
from bertkit.model.formats.torch_files import plug_in, read_state, read_tensors, untied
from bertkit.model.parameters import initial_value, shapes

BY_VOCABULARY = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
PADDED_TO = 8  # how far a vocabulary may fall short of a model's rows
ROUNDED_TO = 128  # training scripts and exporters round the vocabulary's rows up to a multiple of 8, 64 or 128
READERS = "bertkit.weight_readers"  # entry points for other formats: file ending -> function(Path) -> Arrays
OTHERS = "config.json and weights belong to different models"
AGAIN = "copy the folder again"


@dataclass(frozen=True)
class Stored:
    """The tensors of a model's weight file."""

    path: Path  # the file, or the index of several
    arrays: Arrays  # names and dtypes as they are stored, save that TensorFlow's names are already ours
    notes: tuple[str, ...] = ()  # what was left out
    shards: tuple[Path, ...] = ()  # the files that the index names
    warnings: tuple[str, ...] = ()  # what is odd: a choice between several forms, a wrong size


@dataclass(frozen=True)
class Fit:
    """How the weights of a file meet the parameters of a model."""

    weights: Arrays  # complete: what the file lacks has its starting value
    missing: tuple[str, ...]  # parameters that the file lacks
    unexpected: tuple[str, ...]  # tensors of the file that the model has no use for
    reshaped: tuple[str, ...]  # head parameters of another shape, which start anew
    digest: str | None = None  # SHA-256 of the weight file; None: a random start
    notes: tuple[str, ...] = ()  # what was left out
    warnings: tuple[str, ...] = ()  # what is odd about the files


def read_weights(place: Path, pretraining: bool = False) -> Stored:
    """As `read_raw`, under our names and in float32. `pretraining`: the pre-training head is wanted too."""
    stored = read_raw(place, pretraining)
    arrays = normalise(stored.arrays, str(stored.path), pretraining)
    return replace(stored, arrays=arrays)


def read_raw(place: Path, pretraining: bool = True) -> Stored:
    """The weights at `place`: a folder, a weight file, or the prefix of a TensorFlow 1 checkpoint.

    Raises UserError where there are none, or where they are damaged.
    """
    if is_file(place) and has_plug_in(place):
        arrays: Arrays = plug_in(READERS, place)(place)
        return Stored(place, arrays)
    kind, path = find_kind(place)
    if kind == "run":
        raise UserError(
            f"{place}: is a checkpoint of a run", "give the run's folder, or convert it first: bertkit convert"
        )
    if kind == "tf1":
        found = read_tf1(path)
        copied = {name: np.array(array, order="C") for name, array in (found.weights | found.unknown).items()}
        notes = (f"not read: {', '.join(found.passed)}",) if found.passed else ()
        return Stored(path.with_name(path.name + ".index"), copied, notes)
    if kind == "pt":
        state = read_state(path, pretraining=pretraining)
        return Stored(path, state.weights, state.notes)
    return read_hf(path, pretraining)


def read_hf(path: Path, pretraining: bool = True) -> Stored:
    """A Hugging Face folder's weights, or those of one of its weight files."""
    file, warnings = (path, ()) if is_file(path) else weight_file(path)
    if file is None:
        raise UserError(f"{path}: holds no model.safetensors and no pytorch_model.bin", "give a model's folder")
    if file.suffix == ".json":
        stored = _sharded(file)
        return replace(stored, warnings=(*warnings, *stored.warnings))
    if file.suffix in TORCH:
        state = read_state(file, pretraining=pretraining)
        return Stored(file, state.weights, state.notes, warnings=warnings)
    return Stored(file, _safetensors(file), warnings=warnings)


def normalise(arrays: Mapping[str, np.ndarray], where: str = "the file", pretraining: bool = False) -> Arrays:
    """Arrays under the names of `bertkit.model.parameters`, float32, without what is no parameter."""
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinity, which `check_numbers` refuses
        return {
            name: np.asarray(array, np.float32) if array.dtype.kind == "f" else array
            for name, array in untied(arrays, where, pretraining).items()
        }


def fit_weights(
    arrays: Mapping[str, np.ndarray],
    config: ModelConfig,
    head: Head,
    seed: int,
    where: str,
    allow_missing: bool = False,
) -> Fit:
    """Every parameter of the model from `arrays`, or its starting value for `seed`.

    A head that is missing or of another shape starts anew, and so does a pooler that is missing whole: models that
    were trained to fill in words or to find answers have none. Raises UserError, naming the tensor, where the encoder
    or embeddings have another shape, are not finite, or are missing (unless `allow_missing`).
    """
    table = shapes(config, head)
    if not any(name in arrays for name in table if name.startswith("bert.encoder")):
        raise UserError(
            f"{where}: holds no BERT encoder; its tensors are {', '.join(sorted(arrays)[:3])}, …",
            "give the weights of a BERT",
        )
    missing = tuple(name for name in table if name not in arrays)
    if not allow_missing:
        refuse_missing(missing, where)
    weights: Arrays = {}
    reshaped, notes = [], []
    for name, shape in table.items():
        array, note = unpadded(name, arrays[name], shape) if name in arrays else (None, [])
        notes += note
        if array is not None and array.shape != shape:
            if not name.startswith(HEADS):
                raise UserError(f"{where}: {name} is {array.shape}, but config.json asks for {shape}", OTHERS)
            reshaped.append(name)
            array = None
        if array is not None:
            check_numbers(name, array, where)
        weights[name] = initial_value(name, shape, config, seed) if array is None else np.asarray(array, order="C")
    unexpected = tuple(sorted(set(arrays) - set(weights)))
    return Fit(weights, missing, unexpected, tuple(reshaped), notes=tuple(notes))


def refuse_missing(missing: tuple[str, ...], where: str) -> None:
    """Raises UserError where a tensor of the embeddings or the encoder is missing, or half of the pooler."""
    pooler = [name for name in missing if name.startswith("bert.pooler.")]
    lacking = [name for name in missing if name.startswith("bert.") and (name not in pooler or len(pooler) == 1)]
    if not lacking:
        return
    by_layer = itertools.groupby(lacking, lambda name: name.split(".")[3] if ".layer." in name else "")
    said = []
    for layer, names in by_layer:
        group = list(names)
        said += [f"layer {layer} of the encoder"] if layer and len(group) == OF_A_LAYER else group
    more = f" and {len(said) - 4} more" if len(said) > 4 else ""
    raise UserError(
        f"{where}: lacks {', '.join(said[:4])}{more}: the model's trained part is not whole",
        "copy it again, or correct config.json; to train from it nevertheless: --set model.allow_missing=true",
    )


OF_A_LAYER = 16  # tensors


def check_numbers(name: str, array: np.ndarray, where: str) -> None:
    """Raises UserError where a weight is not of a floating dtype, or holds NaN or infinity."""
    if array.dtype.kind != "f":
        raise UserError(
            f"{where}: {name} is of dtype {array.dtype}, not a floating one", "give the model's unquantized weights"
        )
    with np.errstate(all="ignore"):
        sound = np.isfinite(np.sum(array, dtype=np.float64)) or bool(np.isfinite(array).all())
    if not sound:
        wrong = np.count_nonzero(~np.isfinite(array))
        kinds = "NaN" if np.isnan(array).any() else "infinity"
        raise UserError(
            f"{where}: {name} holds {kinds}: {wrong:,} of its {array.size:,} numbers are not finite",
            "its training diverged or the file is damaged: take an earlier checkpoint, or copy it again",
        )


def unpadded(name: str, array: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """Without the rows that round the vocabulary up, beyond what the config asks for; what was left out is noted."""
    if name not in BY_VOCABULARY or not array.ndim or array.shape[1:] != shape[1:]:
        return array, []
    more = len(array) - shape[0]
    if not 0 < more < ROUNDED_TO or (more >= 8 and len(array) % 8):
        return array, []
    held = "" if np.any(array[shape[0] :]) else ", all zero"
    return array[: shape[0]], [f"left out: {more} rows of padding of {name}{held}"]


def _sharded(index: Path) -> Stored:
    """Several files by their index, each tensor where the index says it is."""
    kind = index.name.removesuffix(".index.json")
    said = read_object(index, AGAIN)
    places = said.get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{index}: is no index of weight files: it has no weight_map of names and files", AGAIN)
    arrays: Arrays = {}
    files = sorted(set(places.values()))
    for name in files:
        if Path(name).name != name or "\\" in name:  # an index must not reach outside its folder
            raise UserError(f"{index}: names the file {name!r} outside the folder", "do not use this folder")
        if not is_file(index.parent / name):
            raise UserError(
                f"{index.parent / name}: cannot be read: it is missing, though {index.name} names it", AGAIN
            )
    for name in files:
        shard = index.parent / name
        found = _safetensors(shard) if kind.endswith(".safetensors") else read_tensors(shard)
        for tensor in found:
            if tensor in arrays or places.get(tensor, name) != name:
                raise UserError(f"{shard}: {tensor} is there, but {index.name} has it in {places.get(tensor)}", AGAIN)
        arrays |= found
    lost = [tensor for tensor in places if tensor not in arrays]
    if lost:
        raise UserError(f"{index.parent / places[lost[0]]}: lacks {lost[0]}, which {index.name} has there", AGAIN)
    shards = tuple(index.parent / name for name in files)
    return Stored(index, arrays, shards=shards, warnings=_size_warning(index, said, arrays))


def _size_warning(index: Path, said: Mapping[str, object], arrays: Arrays) -> tuple[str, ...]:
    """A warning where the index speaks of more bytes than there are; of fewer it may: tensors can share theirs."""
    metadata = said.get("metadata")
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    there = sum(array.nbytes for array in arrays.values())
    if type(size) is not int or size <= there:
        return ()
    return (f"{index.name} speaks of {size:,} bytes of tensors, its files hold {there:,}",)


def _safetensors(path: Path) -> Arrays:
    check_kind(path, "safetensors")
    return read_arrays(path)[0]


def has_plug_in(path: Path) -> bool:
    """Whether an installed plug-in reads weight files with this ending, which is none of ours."""
    ending = path.suffix.removeprefix(".")
    return (
        bool(ending) and path.suffix not in (*TORCH, ".safetensors") and bool(entry_points(group=READERS, name=ending))
    )
