"""Reading back what `Engine.state_dict` gave, in whatever framework."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from bertkit.errors import UserError


def read(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """arrays[name], which must be there and have this shape. Raises UserError, naming it."""
    if name not in arrays:
        raise UserError(f"the checkpoint lacks {name}", "it belongs to another model or optimizer")
    if arrays[name].shape != shape:
        raise UserError(
            f"{name} is {arrays[name].shape} in the checkpoint, {shape} in the model",
            "it belongs to another model",
        )
    return arrays[name]
