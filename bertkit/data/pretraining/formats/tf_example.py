"""TFRecord framing and the tf.train.Example message, read and written without TensorFlow.

Formats: tensorflow/core/lib/io/record_writer.h (length, its CRC, data, its CRC) and
tensorflow/core/example/example.proto, feature.proto.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from bertkit.data.pretraining.formats.checked import reading
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN
from bertkit.data.pretraining.formats.shards import INSTALL
from bertkit.errors import UserError
from bertkit.files import inputs

HEADER, FOOTER = 12, 4  # bytes before and behind a record's data
LONGEST = 1 << 30  # bytes of a record; more is a broken length
Span = tuple[int, int]
Raw = bytes | mmap.mmap


def masked_crc(data: bytes) -> int:
    """TFRecord's rotated CRC32C."""
    try:
        from google_crc32c import value
    except ImportError:
        raise UserError("TFRecord needs google-crc32c", INSTALL) from None
    crc = int(value(data))
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def framed(data: bytes) -> bytes:
    """One record as it stands in a file."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        (length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))),
    )


def mapped(path: Path) -> Raw:
    """The file's bytes, without reading them yet."""
    size = inputs.check_file(path)
    with reading(path), path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""


def records(raw: Raw, path: Path) -> Iterator[Span]:
    """Where each record's data stands. Raises UserError naming the offset where the framing is broken."""
    place = 0
    while place < len(raw):
        head = raw[place : place + HEADER]
        if len(head) < HEADER:
            raise UserError(f"{path}: is cut off at byte {place:,}", MAKE_AGAIN)
        length, crc = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != crc or length > LONGEST:
            raise UserError(f"{path}: the record at byte {place:,} has a broken length (CRC)", MAKE_AGAIN)
        end = place + HEADER + length
        if end + FOOTER > len(raw):
            raise UserError(f"{path}: is cut off in the record at byte {place:,}", MAKE_AGAIN)
        yield place + HEADER, end
        place = end + FOOTER


def check_data(raw: Raw, span: Span, path: Path) -> None:
    """Raises UserError naming the offset where the data does not fit its CRC."""
    start, end = span
    (crc,) = struct.unpack("<I", raw[end : end + FOOTER])
    if masked_crc(raw[start:end]) != crc:
        raise UserError(f"{path}: the record at byte {start - HEADER:,} is damaged (CRC)", MAKE_AGAIN)


def features(data: bytes) -> dict[str, tuple[int, list[Span]]]:
    """name -> (kind, spans): 1 bytes, 2 floats, 3 int64. A span is where packed or single values stand.

    Raises ValueError or IndexError for bytes that are no Example.
    """
    found = {}
    for number, *outer in _fields(data, 0, len(data)):
        if number != 1:  # Example.features
            continue
        for _, *entry in _fields(data, *outer):  # Features.feature, a map
            name, kind, spans = "", 0, list[Span]()
            for part, *where in _fields(data, *entry):
                if part == 1:
                    name = data[slice(*where)].decode()
                else:
                    for kind, *values in _fields(data, *where):  # noqa: B007 - the feature's one list
                        spans = [(start, end) for _, start, end in _fields(data, *values)]
            found[name] = (kind, spans)
    return found


def _fields(data: bytes, place: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of a message's fields."""
    while place < end:
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == 2:
            length, place = _varint(data, place)
            after = place + length
        elif kind == 0:
            _, after = _varint(data, place)
        else:
            after = place + {1: 8, 5: 4}[kind]
        if after > end:
            raise ValueError("a field is longer than its message")
        yield tag >> 3, place, after
        place = after


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place


def decode_varints(packed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 bytes -> the int64 values, and where in the bytes each ends (one behind its last)."""
    ends = np.flatnonzero(packed < 0x80) + 1
    if not len(ends):
        return np.empty(0, np.int64), ends
    starts = np.concatenate([[0], ends[:-1]])
    shift = np.arange(ends[-1]) - np.repeat(starts, ends - starts)
    bits = (packed[: ends[-1]] & 0x7F).astype(np.uint64) << (7 * shift).astype(np.uint64)
    return np.add.reduceat(bits, starts).view(np.int64), ends


def encode_varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whole numbers of at least 0 -> their bytes, and how many each takes."""
    bits = values.astype(np.uint64)
    sizes = np.ones(len(bits), np.int64)
    for shift in range(7, 64, 7):
        if not (more := bits >> np.uint64(shift)).any():
            break
        sizes += more > 0
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.arange(len(starts)) - starts
    low = (np.repeat(bits, sizes) >> (7 * place).astype(np.uint64)).astype(np.uint8) & 0x7F
    return low | np.where(place < np.repeat(sizes, sizes) - 1, 0x80, 0).astype(np.uint8), sizes


def example(packed: Mapping[str, tuple[int, bytes]]) -> bytes:
    """An Example of features that are packed already: name -> (2 floats or 3 int64, bytes)."""
    entries = []
    for name, (kind, values) in packed.items():
        feature = _message(kind, _message(1, values))
        entries.append(_message(1, _message(1, name.encode()) + _message(2, feature)))
    return _message(1, b"".join(entries))


def _message(number: int, data: bytes) -> bytes:
    size, length = len(data), bytearray()
    while size >= 0x80:
        length.append(size & 0x7F | 0x80)
        size >>= 7
    length.append(size)
    return bytes((number << 3 | 2,)) + bytes(length) + data
