"""One parameter's name in every system: ours are Hugging Face's; the others stand in weight_names.toml."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any

from bertkit.files.packaged import packaged_table

HEADS = ("classifier.", "qa_outputs.", "cls.")
# What wrappers put into names: DistributedDataParallel, torch.compile, FSDP; anywhere, since a part may be wrapped.
# `model.`: what scripts call their model, in front only.
WRAPPERS = re.compile(r"(?:(?<=\.)|^)(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
IN_FRONT = re.compile(r"^(?:model\.)+")
HUB = re.compile(r"^(?:module(?:_\d+)?/)+")  # before the variables of a module of TensorFlow Hub
LAYER = re.compile(r"(?<=layer[._])\d+")


@functools.cache
def _names() -> Mapping[str, Any]:
    return packaged_table("model", "formats", "weight_names.toml")


@functools.cache
def _from_tf1() -> Mapping[str, str]:
    return {theirs: ours for ours, theirs in _names()["tf1"].items()}


def dialects() -> tuple[str, ...]:
    """The `.pt` dialects by name."""
    return tuple(_names()["pt"])


def ours(name: str) -> str:
    """The name of a state dict's tensor as `bertkit.model.parameters` has it; as it is where it is none of ours."""
    made = IN_FRONT.sub("", WRAPPERS.sub("", name))
    for theirs, part in _names()["parts"].items():
        made = made.replace(theirs, part)
    if not made.startswith(("bert.", *HEADS)) and made.startswith(("embeddings.", "encoder.", "pooler.")):
        made = f"bert.{made}"
    return made


def in_dialect(name: str, dialect: str) -> str:
    """Our name as a `.pt` of `dialect` has it."""
    for part, theirs in _names()["pt"][dialect].items():
        name = name.replace(part, theirs)
    return name


def to_tf1(name: str) -> str | None:
    """Our name as google-research/bert has it; None where it has none."""
    return _translated(name, _names()["tf1"])


def from_tf1(name: str) -> str | None:
    """The name of a TensorFlow 1 variable in ours; None where it is no parameter of a BERT."""
    return _translated(HUB.sub("", name), _from_tf1())


def transposed(tf1_name: str) -> bool:
    """Whether TensorFlow keeps the matrix the other way round."""
    return tf1_name.endswith("/kernel")


def tf1_state(name: str) -> tuple[str, str] | None:
    """What of a training's state a TensorFlow 1 variable is; None where it is none.

    (`first` or `second`, the variable) for a moment, (`step`, "") for the number of updates, (`other`, "").
    """
    state = _names()["tf1_state"]
    variable, _, slot = name.rpartition("/")
    for kind in ("first", "second"):
        if variable and slot in state[kind]:
            return kind, variable
    if name == state["step"]:
        return "step", ""
    return ("other", "") if slot in state["others"] else None


def tf1_slot(variable: str, kind: str) -> str:
    """Where a TensorFlow 1 checkpoint keeps a variable's moment; `kind` as `tf1_state` has it."""
    state = _names()["tf1_state"]
    return str(state["step"]) if kind == "step" else f"{variable}/{state[kind][0]}"


def _translated(name: str, table: Mapping[str, str]) -> str | None:
    number = LAYER.search(name)
    found = table.get(LAYER.sub("{n}", name))
    if found and "{n}" in found:
        return found.replace("{n}", number[0]) if number else None
    return found
