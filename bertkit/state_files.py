"""What training scripts save with `torch.save`: the state dict under `model`, and the optimizer beside it.

The optimizer numbers its parameters: first those that decay, then the others, each in the state dict's order. Under
apex's O2 the weights are rounded to half precision, and `master params` has the float32 ones in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.backend import Arrays
from bertkit.errors import UserError
from bertkit.tf1_weights import FIRST, SECOND, STEP
from bertkit.weight_files import plug_in
from bertkit.weight_names import in_dialect, ours

TREE_READERS, TREE_WRITERS = "bertkit.tree_readers", "bertkit.tree_writers"  # entry points by the file's ending
NO_DECAY = ("bias", "gamma", "beta", "LayerNorm")  # parts of names, as the training scripts divide their parameters
TIES = {
    "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
    "cls.predictions.decoder.bias": "cls.predictions.bias",
}
BUFFERS = ("bert.embeddings.position_ids",)
PADDED_TO = 8  # the training scripts round the vocabulary's rows up to a multiple of this


@dataclass(frozen=True)
class State:
    """A state dict in our names, and what the file holds of a training."""

    weights: Arrays
    moments: Arrays = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_state(path: Path, moments: bool = False) -> State:
    """Raises UserError, in one line, where the file is damaged, could run code or holds no state dict."""
    tree = plug_in(TREE_READERS, path)(path)
    state = tree.get("model", tree) if isinstance(tree, dict) else tree
    items = state.items() if isinstance(state, dict) else ()
    tensors = {name: array for name, array in items if isinstance(array, np.ndarray)}
    if not tensors:
        raise UserError(f"{path}: holds no state dict of tensors", "give the file that `torch.save` made of one")
    weights = untied(tensors, str(path))
    beside = tree if tree is not state else {}
    order = _order([name for name in tensors if ours(name) in weights])
    masters, said = _masters(beside.get("master params"), weights, order)
    state_of, lost = _moments(beside.get("optimizer"), weights, order) if moments else ({}, [])
    kept = {"model", *(["master params"] if masters else []), *(["optimizer"] if state_of else [])}
    rest = [f"left out: {name}" for name in beside if name not in kept]
    return State(weights | masters, state_of, tuple(said + lost + rest))


def untied(tensors: Mapping[str, np.ndarray], where: str) -> Arrays:
    """The parameters by our names, without those that only repeat another. Raises UserError where one differs."""
    named: Arrays = {}
    for theirs, array in tensors.items():
        name = ours(theirs)
        if name in named:
            raise UserError(f"{where}: {theirs} and another tensor are both {name}", "it joins two models; give one")
        named[name] = array
    for copy, origin in TIES.items():
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
    plug_in(TREE_WRITERS, path)(path, {"model": state})


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
    if not isinstance(masters, list):
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
        steps = [np.asarray(entry["step"]).item() for entry in (*groups, *state.values()) if "step" in entry]
        made: Arrays = {STEP: np.array(float(max(steps, default=0)))}
        for name, number in zip(order, numbers, strict=True):
            for start, key in ((FIRST, "exp_avg"), (SECOND, "exp_avg_sq")):
                if state[number][key].shape != weights[name].shape:
                    found, asked = state[number][key].shape, weights[name].shape
                    return {}, [f"moments left out: {key} {number} is {found}, but {name} is {asked}"]
                made[start + name] = state[number][key]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return {}, [f"moments left out: not one of each for every weight: {type(error).__name__}: {error}"]
    return made, []
