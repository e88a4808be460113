"""Sums of host buffers in float32 and bf16, in NumPy: for those who have nothing faster.

bf16 is held as its bits in uint16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

FlatType = Literal["fp32", "bf16"]
Add = Callable[[np.ndarray, Sequence[np.ndarray]], None]  # add(out, parts): out = sum of parts, all of one length;
#   float32, or uint16 that holds bf16's bits. `out` may be one of the parts.
CHUNK = 1 << 16  # elements: their sum stays in the cache


def empty(count: int, dtype: FlatType) -> np.ndarray:
    return np.zeros(count, np.float32 if dtype == "fp32" else np.uint16)


def add(out: np.ndarray, parts: Sequence[np.ndarray]) -> None:
    """An Add: sums in float32 in the order of `parts`, bf16 rounded once."""
    for start in range(0, len(out), CHUNK):
        chunk = slice(start, start + CHUNK)
        total = _wide(parts[0][chunk]).copy()
        for part in parts[1:]:
            total += _wide(part[chunk])
        out[chunk] = total if out.dtype == np.float32 else to_bf16(total)


def _wide(values: np.ndarray) -> np.ndarray:
    return values if values.dtype == np.float32 else from_bf16(values)


def from_bf16(bits: np.ndarray) -> np.ndarray:
    """uint16 -> float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """float32 -> uint16: rounded to the nearest, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)
