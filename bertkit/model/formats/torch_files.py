"""What training scripts save with `torch.save`: the state dict, bare or under a key, and the optimizer beside it.

The optimizer numbers its parameters: first those that decay, then the others, each in the state dict's order. Under
apex's O2 the weights are rounded to half precision, and `master params` has the float32 ones in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.model.config import Arrays
from bertkit.model.formats.file_kinds import Unread, check_kind
from bertkit.model.formats.names import HEADS, in_dialect, ours
from bertkit.model.formats.tf1 import FIRST, SECOND, STEP

TREE_READERS, TREE_WRITERS = "bertkit.tree_readers", "bertkit.tree_writers"  # entry points by the file's ending
NO_DECAY = ("bias", "gamma", "beta", "LayerNorm")  # parts of names, as the training scripts divide their parameters
TIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
BUFFERS = ("bert.embeddings.position_ids", "bert.embeddings.token_type_ids")
NESTS = ("state_dict", "model_state_dict", "model", "module")  # keys under which scripts save a state dict
MOST_NESTED = 4
DENSE = "save it as a plain tensor of float32, float16 or bfloat16"
PADDED_TO = 8  # the training scripts round the vocabulary's rows up to a multiple of this


@dataclass(frozen=True)
class TorchState:
    """A state dict in our names, and what the file holds of a training."""

    weights: Arrays
    moments: Arrays = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_state(path: Path, moments: bool = False, pretraining: bool = True) -> TorchState:
    """Raises UserError, in one line, where the file is damaged, could run code or holds no state dict.

    `pretraining`: the pre-training head is wanted too, so its decoder must be the embeddings.
    """
    state, beside = _read(path)
    weights = untied(state, str(path), pretraining)
    order = _order([name for name in state if ours(name) in weights])
    masters, said = _masters(beside.get("master params"), weights, order)
    state_of, lost = _moments(beside.get("optimizer"), weights, order) if moments else ({}, [])
    kept = {*(["master params"] if masters else []), *(["optimizer"] if state_of else [])}
    rest = [f"left out: {name}" for name in beside if name not in kept]
    return TorchState(weights | masters, state_of, tuple(said + lost + rest))


def read_tensors(path: Path) -> Arrays:
    """A state dict's tensors by their own names, as one shard of a model has them. Raises UserError as `read_state`."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Arrays, dict[str, Any]]:
    check_kind(path, "torch")
    return state_dict(plug_in(TREE_READERS, path, "pt")(path), str(path))


def state_dict(tree: Any, where: str) -> tuple[Arrays, dict[str, Any]]:
    """(the tensors by their own names, what lies beside their dictionary), however deep they are nested.

    Raises UserError where there are none, several dictionaries of them, or one of a BERT that no array can hold.
    """
    beside: dict[str, Any] = {}
    for _ in range(MOST_NESTED):
        if not isinstance(tree, dict) or any(_is_berts(name, value) for name, value in tree.items()):
            break
        nested = [key for key in NESTS if isinstance(tree.get(key), dict) and tree[key]]
        if not nested:
            break
        if len(nested) > 1:
            raise UserError(f"{where}: holds several state dicts: {', '.join(nested)}", "save the one that you want")
        beside |= {str(key): value for key, value in tree.items() if key != nested[0]}
        tree = tree[nested[0]]
    items = tree.items() if isinstance(tree, dict) else ()
    tensors: Arrays = {}
    for name, value in items:
        if isinstance(value, np.ndarray) and isinstance(name, str):
            tensors[name] = value
        elif isinstance(value, Unread) and _is_berts(name, value):
            raise UserError(f"{where}: {name} {value.shape} {value.why}, which is not read here", DENSE)
        else:
            beside[str(name)] = value
    if not tensors:
        keys = ", ".join([str(name) for name, _ in items][:5])
        raise UserError(
            f"{where}: holds no state dict of tensors" + (f"; its keys are {keys}" if keys else ""),
            "give the file that `torch.save` made of one",
        )
    return tensors, beside


def _is_berts(name: object, value: object) -> bool:
    return isinstance(value, np.ndarray | Unread) and isinstance(name, str) and ours(name).startswith(("bert.", *HEADS))


def by_our_names(tensors: Mapping[str, np.ndarray], where: str) -> Arrays:
    """Raises UserError where two tensors have one of our names."""
    named: Arrays = {}
    for theirs, array in tensors.items():
        name = ours(theirs)
        if name in named:
            raise UserError(f"{where}: {theirs} and another tensor are both {name}", "it joins two models; give one")
        named[name] = array
    return named


def untied(tensors: Mapping[str, np.ndarray], where: str, pretraining: bool = True) -> Arrays:
    """The parameters by our names, without those that only repeat another.

    Raises UserError where one differs, unless nobody reads it: that is so without the `pretraining` head.
    """
    named = by_our_names(tensors, where)
    if "cls.predictions.bias" not in named and "cls.predictions.decoder.bias" in named:
        named["cls.predictions.bias"] = named["cls.predictions.decoder.bias"]
    for copy, origin in TIES.items() if pretraining else ():
        if copy in named and not (origin in named and same(named[copy], named[origin])):
            raise UserError(
                f"{where}: {copy} {named[copy].shape} is not {origin}", "bertkit's BERT has one matrix for both"
            )
    return {name: array for name, array in named.items() if name not in (*TIES, *BUFFERS)}


def write_state(path: Path, weights: Mapping[str, np.ndarray], dialect: str) -> None:
    """A `.pt` in a dialect: the state dict under `model`, the decoder beside the embeddings, the vocabulary padded."""
    state = {in_dialect(name, dialect): array for name, array in padded(weights).items()}
    if "cls.predictions.bias" in weights:
        state["cls.predictions.decoder.weight"] = state["bert.embeddings.word_embeddings.weight"]
    plug_in(TREE_WRITERS, path, "pt")(path, {"model": state})


def padded(weights: Mapping[str, np.ndarray]) -> Arrays:
    """With rows of zeros up to a multiple of 8, as the training scripts make them."""
    made = dict(weights)
    for name in TIES.values():
        if name in made:
            more = -len(made[name]) % PADDED_TO
            made[name] = np.pad(made[name], [(0, more), *[(0, 0)] * (made[name].ndim - 1)])
    return made


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Bit for bit."""
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def _order(names: Sequence[str]) -> list[str]:
    """Our names in the optimizer's order, by the scripts' rule on theirs."""
    groups: dict[bool, list[str]] = {False: [], True: []}
    for name in names:
        groups[any(part in name for part in NO_DECAY)].append(ours(name))
    return groups[False] + groups[True]


def _masters(masters: Any, weights: Arrays, order: Sequence[str]) -> tuple[Arrays, list[str]]:
    """The float32 weights, where they are those that `weights` were rounded from."""
    if not isinstance(masters, list) or not all(isinstance(array, np.ndarray) for array in masters):
        return {}, []
    if [array.shape for array in masters] != [weights[name].shape for name in order]:
        return {}, []
    for name, array in zip(order, masters, strict=True):
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16).astype(np.float32)
        stored = weights[name].astype(np.float32)
        if not (np.array_equal(rounded, stored) or np.array_equal(array, stored)):
            return {}, []
    return dict(zip(order, masters, strict=True)), ["weights: the float32 ones of `master params`"]


def _moments(optimizer: Any, weights: Arrays, order: Sequence[str]) -> tuple[Arrays, list[str]]:
    """The optimizer's moments by our names; none, and why, where they do not fit the weights."""
    if optimizer is None:
        return {}, []
    try:
        groups, state = optimizer["param_groups"], optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        steps = [_step(entry["step"]) for entry in (*groups, *state.values()) if "step" in entry]
        made: Arrays = {STEP: np.array(float(max(steps, default=0)))}
        for name, number in zip(order, numbers, strict=True):
            for start, key in ((FIRST, "exp_avg"), (SECOND, "exp_avg_sq")):
                if not isinstance(state[number][key], np.ndarray):
                    raise TypeError(f"{key} {number} is no tensor of numbers")
                if state[number][key].shape != weights[name].shape:
                    found, asked = state[number][key].shape, weights[name].shape
                    return {}, [f"moments left out: {key} {number} is {found}, but {name} is {asked}"]
                made[start + name] = state[number][key]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {}, [f"moments left out: not one of each for every weight: {type(error).__name__}: {error}"]
    return made, []


def _step(value: Any) -> float:
    if not isinstance(value, int | float | np.ndarray):
        raise TypeError(f"a step is {type(value).__name__}")
    return float(np.asarray(value).item())


def plug_in(group: str, path: Path, name: str = "") -> Callable[..., Any]:
    """The function that an installed plug-in has for files with this ending, or under `name`.

    Raises UserError where there is none.
    """
    ending = path.suffix.removeprefix(".")
    for point in entry_points(group=group, name=name or ending):
        try:
            function: Callable[..., Any] = point.load()
        except ImportError as error:
            raise UserError(f"{path}: .{ending} needs {error.name}", f"pip install {error.name}") from None
        return function
    raise UserError(f"{path}: no installed plug-in reads .{ending} files", "convert it to safetensors")
