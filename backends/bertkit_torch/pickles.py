"""Weights in torch's own file format, read without running any code that a file may carry."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import torch

from bertkit.backend import Arrays
from bertkit.errors import UserError


def read_weights(path: Path) -> Arrays:
    """All tensors of a `.bin` or `.pt` state dict, as float32 arrays; NVIDIA's nest it under `model`.

    Raises UserError where the file is damaged, holds no state dict, or would run code on loading.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles: what is wrong with the file is said below
            loaded = torch.load(path, map_location="cpu", weights_only=True)
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
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not any(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path}: holds no state dict of tensors", "give the file that `torch.save` made of one")
    return {name: value.float().numpy() for name, value in state.items() if isinstance(value, torch.Tensor)}
