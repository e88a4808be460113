"""What stands between a shard and whoever trusts its numbers: one place for what libraries raise over a damaged file,
and one for the type and range of the numbers of every format.

Legend: N rows.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.pretraining.formats.rows import MAKE_AGAIN
from bertkit.errors import UserError
from bertkit.files import inputs

LARGEST_ID = 2**31 - 1
KINDS = {
    "f": "numbers with a point",
    "c": "complex numbers",
    "S": "texts",
    "U": "texts",
    "O": "objects",
    "V": "records",
}


def reading(path: Path, cure: str = MAKE_AGAIN, what: str = "is damaged") -> AbstractContextManager[None]:
    """As `bertkit.files.inputs.reading`, of a shard."""
    return inputs.reading(path, cure, what)


@dataclass(frozen=True)
class RowPlace:
    """Where rows come from, for messages."""

    path: Path
    first: int = 0  # the number of the first row in its shard
    word: str = "row"

    def fault(self, row: int, said: str) -> UserError:
        return UserError(f"{self.path}: {self.word} {self.first + row}: {said}", MAKE_AGAIN)


def whole_numbers(
    values: np.ndarray, name: str, place: RowPlace, least: int, most: int, among: np.ndarray | None = None
) -> np.ndarray:
    """(N, …) `values` as signed whole numbers of this machine's byte order.

    Raises UserError where they are of another kind, or one is out of range; `among` (N, …) bool: only of these.
    """
    check_kind(values, name, place, "iub")
    if values.size and not least <= int(values.min()) <= int(values.max()) <= most:
        wrong = (values < least) | (values > most)
        wrong = wrong if among is None else wrong & among
        if wrong.any():
            at = np.unravel_index(int(wrong.argmax()), wrong.shape)
            raise place.fault(int(at[0]), f"{name} has {values[at]}, not a number from {least:,} to {most:,}")
    if values.dtype.kind in "ub":
        return values.astype(np.int64)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def check_kind(values: np.ndarray, name: str, place: RowPlace, kinds: str) -> None:
    """Raises UserError where the array's dtype is none of NumPy's `kinds`."""
    if values.dtype.kind not in kinds:
        held = KINDS.get(values.dtype.kind, f"values of {values.dtype}")
        wanted = "numbers" if "f" in kinds else "whole numbers"
        raise UserError(f"{place.path}: {name} holds {held}, not {wanted}", MAKE_AGAIN)
