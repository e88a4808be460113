"""TFRecord files of tf.Example protocol buffers, read with the standard library: int64 features only.

Formats: tensorflow/core/lib/io/record_writer.h (length, CRC, data, CRC) and tensorflow/core/example/example.proto.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path


def read_tfrecord(path: Path) -> Iterator[dict[str, list[int]]]:
    """Each record's int64 features by name. The CRCs are not checked."""
    raw, place = path.read_bytes(), 0
    while place < len(raw):
        (length,) = struct.unpack_from("<Q", raw, place)
        yield _example(raw[place + 12 : place + 12 + length])
        place += 12 + length + 4


def _example(data: bytes) -> dict[str, list[int]]:
    found = {}
    for _, features in _fields(data):  # Example.features
        for _, entry in _fields(features):  # Features.feature, a map
            pair = dict(_fields(entry))  # 1: key, 2: Feature
            for kind, values in _fields(pair[2]):
                if kind == 3:  # Feature.int64_list
                    found[pair[1].decode()] = [number for _, packed in _fields(values) for number in _varints(packed)]
    return found


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(field number, bytes) of a message; a varint field's bytes are the varint itself."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value, after = _varint(data, place)
        if tag & 7 == 2:
            place, after = after, after + value
        elif tag & 7 != 0:
            raise ValueError(f"wire type {tag & 7} is not read here")
        yield tag >> 3, data[place:after]
        place = after


def _varints(data: bytes) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
