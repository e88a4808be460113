"""Slices of a partitioned TensorFlow variable: where they lie in it, and their keys in a checkpoint's index.

Format: tensorflow/core/framework/tensor_slice.proto, core/util/saved_tensor_slice_util.cc,
core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

Extents = tuple[tuple[int, int], ...]  # (start, length) of a slice in each dimension
FULL = (0, -1)  # a dimension that a slice has whole


def place_of(extents: Extents, shape: Sequence[int]) -> tuple[slice, ...]:
    """Where a slice lies in a variable of this shape; nothing where it lies outside."""
    if len(extents) != len(shape):
        return ()
    ends = [
        (start, start + (width if length < 0 else length))
        for (start, length), width in zip(extents, shape, strict=True)
    ]
    if not all(0 <= start <= end <= width for (start, end), width in zip(ends, shape, strict=True)):
        return ()
    return tuple(slice(start, end) for start, end in ends)


def widths(place: Sequence[slice]) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in place)


def slice_key(name: str, extents: Extents) -> bytes:
    """The key of a slice in the index; keys sort as the numbers in them do."""
    made = b"\0" + name.encode().replace(b"\0", b"\0\xff") + b"\0\1" + _ordered(len(extents))
    return made + b"".join(_ordered_signed(start) + _ordered_signed(length) for start, length in extents)


def _ordered(number: int) -> bytes:
    """A number from 0 on, its length first."""
    raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return bytes([len(raw)]) + raw


def _ordered_signed(number: int) -> bytes:
    """A signed number in as few bytes as hold it behind as many ones as bytes; all turned over for negative ones."""
    size = next(size for size in range(1, 11) if -(1 << (7 * size - 1)) <= number < 1 << (7 * size - 1))
    header = ((1 << size) - 1) << (7 * size)
    return ((number & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")
