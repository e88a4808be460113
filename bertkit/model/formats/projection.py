"""The projection that another program's general distillation left beside a student: a student's hidden states to its
teacher's width."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bertkit.errors import UserError
from bertkit.files.inputs import is_file
from bertkit.model.config import Arrays
from bertkit.model.formats.torch_files import by_our_names, read_tensors
from bertkit.model.parameters import PROJECTION
from bertkit.model.weights import check_numbers

PROJECT, FITTED = "project.bin", "fit_dense"  # general_distill.py's file, and its one layer


def kept_projection(folder: Path | None, width: int, hidden: int) -> Arrays:
    """The projection to a teacher's `width` that general_distill.py left beside a student; empty where there is none.

    Raises UserError where it is of other sizes, or holds what is no number.
    """
    path = folder / PROJECT if folder else None
    if path is None or not width or not is_file(path):
        return {}
    found = by_our_names(read_tensors(path), str(path))
    made: Arrays = {}
    for part, shape in (("weight", (width, hidden)), ("bias", (width,))):
        array = found.get(f"{FITTED}.{part}")
        if array is None or array.shape != shape or array.dtype.kind != "f":
            held = ", ".join(f"{name} {one.shape}" for name, one in [*found.items()][:3])
            raise UserError(
                f"{path}: holds {held}, no {FITTED}.{part} {shape}", "move the file away, to start with a random one"
            )
        check_numbers(f"{FITTED}.{part}", array, str(path))
        made[f"{PROJECTION}.{part}"] = array.astype(np.float32)
    return made
