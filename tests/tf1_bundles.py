"""TensorFlow 1 checkpoints as TensorFlow writes them and bertkit's `write_bundle` does not, for tests.

Partitioned variables and dtypes that no array has, by the published layout: core/protobuf/tensor_bundle.proto,
core/framework/tensor_slice.proto, core/util/saved_tensor_slice_util.cc, core/lib/strings/ordered_code.cc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bertkit.model.formats.tf1_table import masked_crc, varint, write_table

HEADER = b"\x08\x01\x1a\x02\x08\x01"
FLOAT, STRING, COMPLEX64, BOOL = 1, 7, 8, 10
Extents = Sequence[tuple[int, int] | None]  # (start, length) in each dimension; None: all of it


def message(number: int, kind: int, value: bytes) -> bytes:
    return varint(number << 3 | kind) + (varint(len(value)) if kind == 2 else b"") + value


def entry(dtype: int, shape: Iterable[int], offset: int = 0, raw: bytes = b"", slices: Iterable[Extents] = ()) -> bytes:
    """A BundleEntryProto; with slices, without place, size and CRC."""
    made = message(1, 0, varint(dtype))
    made += message(2, 2, b"".join(message(2, 2, message(1, 0, varint(width))) for width in shape))
    slices = list(slices)
    if not slices:
        made += message(4, 0, varint(offset)) + message(5, 0, varint(len(raw)))
        made += message(6, 5, struct.pack("<I", masked_crc(raw)))
    for extents in slices:
        made += message(7, 2, b"".join(message(1, 2, _extent(extent)) for extent in extents))
    return made


def _extent(extent: tuple[int, int] | None) -> bytes:
    if extent is None:
        return b""
    start, length = extent
    return (message(1, 0, varint(start)) if start else b"") + message(2, 0, varint(length))


def key(name: str, extents: Extents) -> bytes:
    """A slice's key: 0, the name, the number of dimensions, and start and length of each, so written that they sort."""
    made = b"\0" + name.encode() + b"\0\1" + bytes([1, len(extents)])
    for start, length in (extent or (0, -1) for extent in extents):
        made += signed(start) + signed(length)
    return made


def signed(number: int) -> bytes:
    """By bits: the sign (1: not negative), one such bit for each byte after the first, the other bit, the number."""
    size = 1
    while not -(2 ** (7 * size - 1)) <= number < 2 ** (7 * size - 1):
        size += 1
    payload = format(number % 2 ** (7 * size - 1), f"0{7 * size - 1}b")
    sign, other = ("0", "1") if number < 0 else ("1", "0")
    return int(sign * size + other + payload, 2).to_bytes(size, "big")


def write(
    prefix: Path,
    arrays: Mapping[str, np.ndarray],
    partitions: Mapping[str, Sequence[Extents]] | None = None,
    others: Mapping[str, tuple[int, bytes]] | None = None,
) -> None:
    """float32 variables, those in `partitions` cut up; `others`: variables of other dtypes by name, as they are."""
    table: dict[bytes, bytes] = {b"": HEADER}
    data = b""
    for name, array in arrays.items():
        cuts = (partitions or {}).get(name)
        for extents in cuts or [None]:
            place = tuple(slice(None) if e is None else slice(e[0], e[0] + e[1]) for e in extents or ())
            part = array[place]
            raw = part.astype("<f4").tobytes()
            table[key(name, extents) if extents else name.encode()] = entry(FLOAT, part.shape, len(data), raw)
            data += raw
        if cuts:
            table[name.encode()] = entry(FLOAT, array.shape, slices=cuts)
    for name, (dtype, raw) in (others or {}).items():
        table[name.encode()] = entry(dtype, (), len(data), raw)
        data += raw
    prefix.parent.mkdir(parents=True, exist_ok=True)
    prefix.with_name(prefix.name + ".index").write_bytes(write_table(sorted(table.items())))
    prefix.with_name(prefix.name + ".data-00000-of-00001").write_bytes(data)


def rows(height: int, parts: int, dimensions: int = 2) -> list[Extents]:
    """As `tf.fixed_size_partitioner(parts)` cuts: along the first dimension, the earlier ones larger by one."""
    small, more = divmod(height, parts)
    made: list[Extents] = []
    start = 0
    for number in range(parts):
        length = small + (number < more)
        made.append([(start, length), *[None] * (dimensions - 1)])
        start += length
    return made
