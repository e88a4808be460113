"""Rows that are no file: lists, dicts, frames of pandas and polars, data sets of `datasets`, any iterable of dicts, or
a table on standard input.

They are kept under the SHA-256 of their content, the former as JSON lines, so that a run made of them has a file as any
other: it can be repeated and resumed, its features are cached, and its record names its data.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import numpy as np

from bertkit.errors import UserError

CHUNK = 1 << 20  # bytes
GIVE = "give a file's name, a list of dicts, a dict of columns, or a frame"


def rows_of(data: Any) -> Iterable[Any]:
    """The rows of a frame or a data set as dicts; of a dict of columns likewise; other iterables as they are.

    Raises UserError for what has no rows.
    """
    if hasattr(data, "iter_rows"):  # polars
        named: Iterable[Any] = data.iter_rows(named=True)
        return named
    if hasattr(data, "itertuples") and hasattr(data, "columns"):  # pandas
        names = [str(name) for name in data.columns]
        return (dict(zip(names, row, strict=True)) for row in data.itertuples(index=False, name=None))
    if hasattr(data, "features") and hasattr(data, "column_names"):  # datasets
        return _of_dataset(data)
    if isinstance(data, Mapping):
        return _of_columns(data)
    if not isinstance(data, Iterable) or isinstance(data, str | bytes):
        raise UserError(f"{type(data).__name__} has no rows", GIVE)
    return data


def _of_dataset(data: Any) -> Iterator[dict[str, Any]]:
    """With the names of classes in place of their numbers."""
    names = {column: feature.names for column, feature in data.features.items() if hasattr(feature, "names")}
    for row in data:
        yield {column: _class_name(value, names.get(column)) for column, value in row.items()}


def _class_name(value: Any, names: list[str] | None) -> Any:
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value


def _of_columns(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    columns = {str(name): list(values) for name, values in data.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise UserError(f"the columns have different lengths: {lengths}", GIVE)
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def kept(data: Any, folder: Path) -> Path:
    """The file in `folder` that holds the rows; written where there is none yet.

    Raises UserError where a row is no dict, or there is none.
    """

    def lines() -> Iterator[bytes]:
        for number, row in enumerate(rows_of(data), 1):
            if not isinstance(row, Mapping):
                raise UserError(f"row {number} is {type(row).__name__}, not a dict", GIVE)
            line = json.dumps({str(name): plain(value) for name, value in row.items()}, ensure_ascii=False) + "\n"
            yield line.encode("utf-8", "surrogatepass")

    return _kept(lines(), folder, "rows-{}.jsonl", UserError("the data has no rows", GIVE))


def kept_stream(stream: IO[bytes], folder: Path) -> Path:
    """The file in `folder` that holds what comes on standard input, of any format that is told by its content.

    Raises UserError where nothing comes.
    """
    none = UserError("standard input is empty", "send a table, as in `cat reviews.csv | bertkit …`, or name a file")
    return _kept(iter(partial(stream.read, CHUNK), b""), folder, "stdin-{}", none)


def _kept(pieces: Iterable[bytes], folder: Path, name: str, none: UserError) -> Path:
    """Write the pieces under their digest; `none` is raised where there are none."""
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{name.format(os.getpid())}.part"
    digest, size = sha256(), 0
    try:
        with part.open("wb") as file:
            for piece in pieces:
                digest.update(piece)
                size += file.write(piece)
        if not size:
            raise none
        path = folder / name.format(digest.hexdigest()[:16])
        part.replace(path)
        return path
    finally:
        part.unlink(missing_ok=True)


def plain(value: Any) -> Any:
    """A cell as JSON has it: NumPy's and pandas's numbers as Python's, what is missing as null."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | int | float | bool | dict):
        return value
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)
