"""Torch's own file format, read without running any code that a file may carry, and written."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertkit.plugin import Unread, UserError, write_atomically
from bertkit_torch.archives import check_archive

# what torch says of a class or function that it does not let a file call
_CODE = re.compile(
    r"(Unsupported (global|class).*?|Trying to (call|load|instantiate).*?)(?= was not an allowed|$)", re.M
)


def read_tree(path: Path) -> Any:
    """What the file holds, its tensors as arrays of their own dtype (bfloat16 as float32). Raises UserError.

    A tensor that no array can hold is an `Unread`, which says why.
    """
    checked = check_archive(path)
    try:
        tree = _load(path)
        if not checked:
            raise UserError(f"{path}: its storages cannot be compared with their records", "save the state dict alone")
        return _with_arrays(tree, {})
    except RecursionError:
        raise UserError(f"{path}: is nested too deep", "save the state dict alone") from None


def write_tree(path: Path, tree: Any) -> None:
    """The file that `torch.save` makes of the tree with tensors in place of arrays; whole or not at all."""
    write_atomically(path, lambda temporary: torch.save(_with_tensors(tree, {}), temporary))


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles: what is wrong with the file is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refused(path, str(error)) from None
    except MemoryError:
        raise UserError(f"{path}: does not fit into memory, or is damaged", "copy the file again") from None
    except Exception as error:  # a damaged file makes torch raise whatever its unpickler stumbles over
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}: is cut off or no torch file: {type(error).__name__}: {reason}", "copy the file again"
        ) from None


def _refused(path: Path, said: str) -> UserError:
    cure = "convert it to safetensors, or save its state_dict(), where it was made"
    code = _CODE.search(said)
    if code:
        return UserError(f"{path}: refused, since loading it could run code: {code[0]}", cure)
    reason = said.split("WeightsUnpickler error:", 1)[-1].strip().split("\n")[0]
    return UserError(f"{path}: refused: it is damaged, or loading it could run code: {reason}", cure)


def _with_arrays(value: Any, made: dict[int, Any]) -> Any:
    """`made`: what stands at several places is made once, however often a file repeats it."""
    if isinstance(value, torch.Tensor):
        return _array(value)
    if not isinstance(value, dict | list | tuple):
        return value
    if id(value) not in made:
        made[id(value)] = None  # should it hold itself
        made[id(value)] = (
            {key: _with_arrays(part, made) for key, part in value.items()}
            if isinstance(value, dict)
            else [_with_arrays(part, made) for part in value]
        )
    return made[id(value)]


def _array(tensor: torch.Tensor) -> np.ndarray | Unread:
    shape = tuple(tensor.shape)
    if tensor.layout is not torch.strided or tensor.is_nested:
        return Unread(f"is stored as {str(tensor.layout).removeprefix('torch.')}", shape)
    if tensor.is_quantized:
        return Unread(f"is quantized ({str(tensor.dtype).removeprefix('torch.')})", shape)
    if tensor.device.type != "cpu":
        return Unread(f"has no values (device {tensor.device})", shape)
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return Unread("repeats its values by strides", shape)
    plain = tensor.detach().resolve_conj().resolve_neg()
    try:
        return (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()
    except TypeError:
        return Unread(f"is of dtype {str(tensor.dtype).removeprefix('torch.')}", shape)


def _with_tensors(value: Any, made: dict[int, torch.Tensor]) -> Any:
    """`made`: tensors by the identity of their array; one that stands at two places is saved once."""
    if isinstance(value, np.ndarray):
        if id(value) not in made:
            made[id(value)] = torch.from_numpy(np.array(value, order="C"))
        return made[id(value)]
    return {key: _with_tensors(part, made) for key, part in value.items()} if isinstance(value, dict) else value
