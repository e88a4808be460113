"""Torch's own file format, read without running any code that a file may carry, and written."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bertkit.backend import Arrays
from bertkit.disk import write_atomically
from bertkit.errors import UserError


def read_weights(path: Path) -> Arrays:
    """All tensors of a `.bin` or `.pt` state dict, as float32 arrays; NVIDIA's nest it under `model`.

    Raises UserError where the file is damaged, holds no state dict, or would run code on loading.
    """
    loaded = _load(path)
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors", "give the file that `torch.save` made of one")
    return {name: value.float().numpy() for name, value in state.items() if isinstance(value, torch.Tensor)}


def read_tree(path: Path) -> Any:
    """What the file holds, its tensors as arrays of their own dtype (bfloat16 as float32). Raises UserError."""
    return _with_arrays(_load(path))


def write_tree(path: Path, tree: Any) -> None:
    """The file that `torch.save` makes of the tree with tensors in place of arrays; whole or not at all."""
    write_atomically(path, lambda temporary: torch.save(_with_tensors(tree, {}), temporary))


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles: what is wrong with the file is said below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).split("\n")[0]
        raise UserError(
            f"{path}: refused, since loading it could run code: {reason}",
            "convert it to safetensors where it was made",
        ) from None
    except Exception as error:  # a damaged file makes torch raise whatever its unpickler stumbles over
        reason = (str(error).splitlines() or [""])[0]
        raise UserError(
            f"{path}: is cut off or no torch file: {type(error).__name__}: {reason}", "copy the file again"
        ) from None


def _with_arrays(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return (value.float() if value.dtype is torch.bfloat16 else value).detach().numpy()
    if isinstance(value, dict):
        return {key: _with_arrays(part) for key, part in value.items()}
    return [_with_arrays(part) for part in value] if isinstance(value, list | tuple) else value


def _with_tensors(value: Any, made: dict[int, torch.Tensor]) -> Any:
    """`made`: tensors by the identity of their array; one that stands at two places is saved once."""
    if isinstance(value, np.ndarray):
        if id(value) not in made:
            made[id(value)] = torch.from_numpy(np.array(value, order="C"))
        return made[id(value)]
    return {key: _with_tensors(part, made) for key, part in value.items()} if isinstance(value, dict) else value
