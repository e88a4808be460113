"""Tensors of the Open Inference Protocol, version 2: named arrays, as JSON or as raw bytes, in both directions.

As the protocol's text and its extension "binary tensor data" have them. Everything from outside is checked, and a
UserError names the tensor; it never repeats an element, which may be a user's text. No web framework.

Legend: N elements of a tensor.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from bertkit.errors import UserError

BYTES, BF16 = "BYTES", "BF16"
# Datatype -> what its elements are in a raw tensor, little-endian whatever the machine is.
RAW_TYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
DATATYPES = (*RAW_TYPES, BF16, BYTES)
MOST_AXES = 16
MOST_ELEMENTS = 1 << 40  # far more than any body has; numpy refuses shapes of more than 2 ** 63 bytes, empty ones too
_LENGTH = struct.Struct("<I")  # before each element of BYTES
_JSON_KINDS = {
    "b": (frozenset({bool}), "true or false"),
    "i": (frozenset({int}), "a whole number"),
    "u": (frozenset({int}), "a whole number"),
    "f": (frozenset({int, float}), "a number"),
}


@dataclass(frozen=True)
class Tensor:
    """An array with its name. Build one with `tensor`, which checks that array and datatype fit."""

    name: str
    datatype: str  # one of DATATYPES
    values: np.ndarray  # of BYTES: objects, each `bytes`; of BF16: float32
    parameters: Mapping[str, Any] = field(default_factory=dict)  # without `binary_data_size`

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def texts(self) -> list[str]:
        """The N elements of BYTES in row-major order. Raises UserError where one is not UTF-8."""
        try:
            return [value.decode("utf-8") for value in self.values.reshape(-1).tolist()]
        except UnicodeDecodeError:
            raise UserError(f"{self.name!r} holds bytes that are not UTF-8", "send texts in UTF-8") from None


def tensor(name: str, values: Any, datatype: str = "") -> Tensor:
    """A tensor of an array, or of what numpy makes one of; texts and bytes become BYTES.

    `datatype`: "" takes the array's own; BF16 takes float32. Raises UserError where there is none for the array.
    """
    array = np.asarray(values)
    if array.dtype.kind in "OSU":
        array = _as_bytes(name, array)
        own = BYTES
    else:
        own = next((key for key, raw in RAW_TYPES.items() if raw == array.dtype.newbyteorder("<")), "")
    if not own:
        raise UserError(f"{name!r} is an array of {array.dtype}, which no datatype is", f"use {', '.join(DATATYPES)}")
    if datatype not in ("", own) and (datatype, own) != (BF16, "FP32"):
        raise UserError(f"{name!r} is an array of {own}, not {datatype}", "convert it")
    return Tensor(name=name, datatype=datatype or own, values=array)


def _as_bytes(name: str, array: np.ndarray) -> np.ndarray:
    found = np.empty(array.shape, object)
    flat = found.reshape(-1)  # a view: the array is new
    for place, value in enumerate(array.reshape(-1).tolist()):
        if not isinstance(value, str | bytes):
            raise UserError(f"{name!r} holds {type(value).__name__}, not only texts and bytes", "convert them")
        flat[place] = value.encode("utf-8") if isinstance(value, str) else value
    return found


# ---- to bytes ----


def tensor_to_json(one: Tensor) -> list[Any]:
    """The N elements, flat, in row-major order. Raises UserError for what JSON cannot hold."""
    if one.datatype == BF16:
        raise UserError(f"{one.name!r} is {BF16}, which has no form in JSON", "send it as binary data")
    if one.datatype == BYTES:
        return one.texts()
    if one.values.dtype.kind == "f" and not np.isfinite(one.values).all():
        raise UserError(
            f"{one.name!r} holds numbers that are not finite, which JSON cannot hold", "send it as binary data"
        )
    return list(one.values.reshape(-1).tolist())


def tensor_to_raw(one: Tensor) -> bytes:
    """The elements as they stand behind the JSON. BF16 keeps the upper half of each float32, as Triton's client does.

    Raises UserError where an element of BYTES is too long for its length.
    """
    if one.datatype == BYTES:
        elements = one.values.reshape(-1).tolist()
        if any(len(element) >= 1 << 32 for element in elements):
            raise UserError(f"{one.name!r} holds an element of 4 GB or more", "send shorter ones")
        return b"".join(chain.from_iterable((_LENGTH.pack(len(element)), element) for element in elements))
    if one.datatype == BF16:
        bits = np.ascontiguousarray(one.values, "<f4").view("<u4")
        return (bits >> 16).astype("<u2").tobytes()
    return one.values.astype(RAW_TYPES[one.datatype]).tobytes()


# ---- from bytes ----


def tensor_from_json(name: str, datatype: str, shape: tuple[int, ...], data: Any) -> Tensor:
    """`data`: as the JSON has it, nested as `shape` says, or flat. Raises UserError for elements that do not fit."""
    flat = _flat(name, shape, data)
    if len(flat) != math.prod(shape):
        raise UserError(f"{name!r} has {len(flat):,} elements, but its shape is {list(shape)}", "send as many")
    if datatype == BF16:
        raise UserError(f"{name!r} is {BF16}, which has no form in JSON", "send it as binary data")
    if datatype == BYTES:
        _check_kinds(name, flat, frozenset({str}), "a text")
        values = np.empty(len(flat), object)
        values[:] = [text.encode("utf-8") for text in flat]
    else:
        values = _numbers(name, datatype, flat)
    return Tensor(name=name, datatype=datatype, values=values.reshape(shape))


def tensor_from_raw(name: str, datatype: str, shape: tuple[int, ...], raw: memoryview) -> Tensor:
    """`raw`: the tensor's own bytes. Raises UserError where they are not what the shape says."""
    count = math.prod(shape)
    if datatype == BYTES:
        return Tensor(name=name, datatype=datatype, values=_elements(name, count, raw).reshape(shape))
    kind = np.dtype("<u2") if datatype == BF16 else RAW_TYPES[datatype]
    if len(raw) != count * kind.itemsize:
        raise UserError(
            f"{name!r} has {len(raw):,} bytes, but {datatype} of shape {list(shape)} has {count * kind.itemsize:,}",
            "send as many",
        )
    if datatype == "BOOL" and count and int(np.frombuffer(raw, np.uint8).max()) > 1:
        raise UserError(f"{name!r} is BOOL and holds bytes other than 0 and 1", "send those")
    values = np.frombuffer(raw, kind)
    if datatype == BF16:
        values = (values.astype("<u4") << 16).view("<f4")
    native = values.astype(values.dtype.newbyteorder("="))  # a copy: what is kept of a request is not all of its body
    return Tensor(name=name, datatype=datatype, values=native.reshape(shape))


def _flat(name: str, shape: Sequence[int], data: Any) -> list[Any]:
    """The elements of a list that is flat, or nested as `shape` says."""
    if not isinstance(data, list):
        raise UserError(f"{name!r} has data that is not a list", "send a list of its elements")
    if not any(isinstance(each, list) for each in data):
        return data
    level: list[Any] = [data]
    for axis, size in enumerate(shape):
        if not all(isinstance(each, list) and len(each) == size for each in level):
            raise UserError(
                f"{name!r} has data that is not nested as its shape {list(shape)} says, at axis {axis}",
                "nest it so, or send it flat",
            )
        level = list(chain.from_iterable(level))
    return level


def _check_kinds(name: str, flat: list[Any], kinds: frozenset[type], what: str) -> None:
    if not set(map(type, flat)) <= kinds:
        place = next(place for place, value in enumerate(flat) if type(value) not in kinds)
        raise UserError(f"{name!r}: element {place:,} is not {what}", f"send {what} for each element")


def _numbers(name: str, datatype: str, flat: list[Any]) -> np.ndarray:
    raw = RAW_TYPES[datatype]
    kinds, what = _JSON_KINDS[raw.kind]
    _check_kinds(name, flat, kinds, what)
    native = raw.newbyteorder("=")
    if raw.kind in "iu" and flat:
        info = np.iinfo(native)
        if min(flat) < info.min or max(flat) > info.max:
            raise UserError(f"{name!r} holds numbers that {datatype} cannot hold", f"send {info.min} to {info.max}")
    if raw.kind != "f":
        return np.array(flat, native)
    try:
        with np.errstate(over="ignore"):
            values = np.array(flat, np.float64).astype(native)
    except OverflowError:
        values = np.array([np.inf])
    if not np.isfinite(values).all():
        raise UserError(f"{name!r} holds numbers that {datatype} cannot hold", "send finite numbers within its range")
    return values


def _elements(name: str, count: int, raw: memoryview) -> np.ndarray:
    """The N elements of BYTES, each behind its length."""
    if count * _LENGTH.size > len(raw):
        raise UserError(f"{name!r} has {len(raw):,} bytes, too few for {count:,} elements", "send as many as its shape")
    found = np.empty(count, object)
    place = 0
    for number in range(count):
        start = place + _LENGTH.size
        end = start + (_LENGTH.unpack_from(raw, place)[0] if start <= len(raw) else 0)
        if start > len(raw) or end > len(raw):
            raise UserError(f"{name!r}: element {number:,} is cut off", "send its length in 4 bytes, then its bytes")
        found[number] = bytes(raw[start:end])
        place = end
    if place != len(raw):
        raise UserError(f"{name!r} has {len(raw) - place:,} bytes behind its {count:,} elements", "send none")
    return found


def check_shape(name: str, shape: Any) -> tuple[int, ...]:
    """A shape from outside. Raises UserError for anything but a short list of sizes."""
    fits = isinstance(shape, list) and len(shape) <= MOST_AXES
    if not fits or not all(type(size) is int and 0 <= size < 1 << 31 for size in shape):
        raise UserError(f"{name!r} has a shape that is not a list of sizes", "send one, as [1, 16]")
    if math.prod(size or 1 for size in shape) > MOST_ELEMENTS:
        raise UserError(f"{name!r} has a shape of too many elements: {shape}", "send smaller tensors")
    return tuple(shape)


def check_datatype(name: str, datatype: Any) -> str:
    """A datatype from outside. Raises UserError, naming those there are."""
    if datatype not in DATATYPES:
        raise UserError(f"{name!r} has no known datatype", f"use {', '.join(DATATYPES)}")
    return str(datatype)
