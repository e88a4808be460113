"""A Parquet table's columns as NumPy arrays, whatever of Arrow's types hold them: one place that tells texts, bytes,
whole numbers and lists of them apart and refuses the rest by the column's name.

Legend: N rows, M entries of all rows' lists.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from bertkit.data.pretraining.formats.checked import RowPlace, check_kind, reading, whole_numbers
from bertkit.data.pretraining.formats.rows import MAKE_AGAIN, slots
from bertkit.errors import UserError

NPY_HEADER = 128  # bytes of np.save's header for a short list


def plain(table: Any, name: str, place: RowPlace) -> Any:
    """A column as one array of a plain type: dictionaries looked up, views and fixed sizes made ordinary."""
    import pyarrow as pa

    column = table[name]
    with reading(place.path, what=f"the column {name} cannot be read"):
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        column = column.cast(_ordinary(column.type, pa))
        made = column.combine_chunks()
        made = (
            made if isinstance(made, pa.Array) else pa.concat_arrays(made.chunks)
        )  # what one array cannot hold raises
        made.validate(full=True)
    return made


def _ordinary(type: Any, pa: Any) -> Any:
    """The plain type that stands for one: text, bytes, a list of them; others as they are."""
    types = pa.types
    if types.is_dictionary(type):
        return _ordinary(type.value_type, pa)
    if types.is_string_view(type):
        return pa.large_string()
    if types.is_large_binary(type) or types.is_binary_view(type) or types.is_fixed_size_binary(type):
        return pa.binary()
    if types.is_list(type) or types.is_large_list(type) or types.is_fixed_size_list(type):
        return pa.large_list(_ordinary(type.value_type, pa))
    return type


def whole(table: Any, name: str, place: RowPlace, least: int, most: int, none: int | None = None) -> np.ndarray:
    """(N,) int64 of a column of whole numbers, or of true and false; `none`: what a missing value stands for."""
    import pyarrow as pa

    values = plain(table, name, place)
    if pa.types.is_null(values.type):
        values = values.cast(pa.int8())
    if not pa.types.is_integer(values.type) and not pa.types.is_boolean(values.type):
        raise _other(name, values.type, "whole numbers", place)
    if values.null_count:
        if none is None:
            raise place.fault(_first(values.is_null()), f"{name} is missing")
        values = values.fill_null(False if pa.types.is_boolean(values.type) else none)
    found = values.to_numpy(zero_copy_only=False)
    return whole_numbers(found, name, place, least, most).astype(np.int64)


def pieces(table: Any, name: str, known: Any, place: RowPlace) -> tuple[np.ndarray, np.ndarray, Any]:
    """A column of word pieces with spaces between, or of lists of them -> (M,) their numbers in `known`, (N,) how many
    each row has, and the pieces themselves; -1 for one that is not known."""
    import pyarrow as pa
    from pyarrow import compute

    column = plain(table, name, place)
    if pa.types.is_null(column.type):
        column = column.cast(pa.string())
    if _is_text(column.type, pa):
        column = compute.split_pattern(compute.if_else(compute.equal(column, ""), None, column), " ")
    elif not (pa.types.is_large_list(column.type) and _is_text(column.type.value_type, pa)):
        raise _other(name, column.type, "texts", place)
    counts = compute.fill_null(compute.list_value_length(column), 0).to_numpy().astype(np.int64)
    flat = compute.list_flatten(column)
    found = compute.index_in(flat, value_set=known.cast(flat.type))
    return compute.fill_null(found, -1).to_numpy().astype(np.int64), counts, flat


def _is_text(type: Any, pa: Any) -> bool:
    return bool(pa.types.is_string(type) or pa.types.is_large_string(type))


def positions(table: Any, name: str, counts: np.ndarray, place: RowPlace) -> np.ndarray:
    """(M,) of cells that hold `counts` (N,) whole numbers each: np.save's bytes of a list, or a list."""
    import pyarrow as pa

    cells = plain(table, name, place)
    if not len(cells):
        return np.empty(0, np.int64)
    if pa.types.is_null(cells.type) and not counts.any():
        return np.empty(0, np.int64)
    if pa.types.is_binary(cells.type):
        return _saved(cells, name, counts, place)
    if not (pa.types.is_large_list(cells.type) and pa.types.is_integer(cells.type.value_type)):
        raise _other(name, cells.type, "lists of whole numbers", place)
    had = cells.value_lengths().fill_null(0).to_numpy().astype(np.int64)
    _same(had, counts, name, place)
    flat = cells.flatten()
    row = np.repeat(np.arange(len(counts)), counts)
    if flat.null_count:
        raise place.fault(int(row[_first(flat.is_null())]), f"{name} lacks a number")
    numbers: np.ndarray = flat.to_numpy().astype(np.int64)
    return numbers


def _saved(cells: Any, name: str, counts: np.ndarray, place: RowPlace) -> np.ndarray:
    ends = np.frombuffer(cells.buffers()[1], np.int32)[cells.offset : cells.offset + len(cells) + 1].astype(np.int64)
    data = np.frombuffer(cells.buffers()[2] or b"", np.uint8)
    sizes = np.diff(ends) - NPY_HEADER
    if (sizes == 2 * counts).all() and _plain_headers(data, ends[:-1]):
        short: np.ndarray = data[slots(ends[:-1] + NPY_HEADER, sizes)].view("<u2")
        return short.astype(np.int64)
    arrays = [_load(cell, row, name, place) for row, cell in enumerate(cells.to_pylist())]
    _same(np.array([len(array) for array in arrays]), counts, name, place)
    return np.concatenate([np.empty(0, np.int64), *arrays])


def _plain_headers(data: np.ndarray, starts: np.ndarray) -> bool:
    """Whether every cell is a list of uint16 as np.save writes it."""
    wanted = np.frombuffer(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<u2', 'fortran_order': False, 'shape': (", np.uint8)
    return bool((data[starts[:, None] + np.arange(len(wanted))] == wanted).all())


def _load(cell: bytes | None, row: int, name: str, place: RowPlace) -> np.ndarray:
    if cell is None:
        raise place.fault(row, f"{name} is missing")
    with reading(place.path, what=f"row {row}: its masked positions are damaged"):
        found = np.lib.format.read_array(io.BytesIO(cell), allow_pickle=False)
    check_kind(found, name, place, "iu")
    if found.ndim != 1:
        raise place.fault(row, f"{name} is no list of numbers")
    return whole_numbers(found, name, place, 0, 2**63 - 1).astype(np.int64)


def _same(had: np.ndarray, counts: np.ndarray, name: str, place: RowPlace) -> None:
    wrong = had != counts
    if wrong.any():
        row = int(wrong.argmax())
        raise place.fault(row, f"{name} has {had[row]} numbers, and there are {counts[row]} masked labels")


def _first(where: Any) -> int:
    return int(where.to_numpy(zero_copy_only=False).argmax())


def _other(name: str, type: Any, wanted: str, place: RowPlace) -> UserError:
    return UserError(f"{place.path}: the column {name} holds {type}, not {wanted}", MAKE_AGAIN)
