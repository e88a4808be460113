"""JSON: an object a line (JSON lines), a list of objects, or one object with such a list or with a list a column."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.data.tables.table import DataTable, Row, TableWriter
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import to_json
from bertkit.files.packed import open_text, read_line, read_some

BOM = b"\xef\xbb\xbf"
JSON = (".json", ".jsonl", ".ndjson")  # suffixes
LONGEST = 64 << 20  # bytes of a line
LARGEST = 1 << 30  # bytes of JSON that is read whole
FIRST = 100  # rows whose keys are the columns
ONE_A_LINE = "write one JSON object a line, each with the same keys"
INSIDE = ("data", "rows", "examples", "instances")  # keys under which others keep their rows


def open_json(path: Path) -> DataTable:
    """Look at the file. Raises UserError where it holds no rows."""
    line, rest = _first_line(path)
    if not line:
        raise UserError(f"{path}: is empty", "name a file with rows")
    if line.startswith(b"{") and _is_a_row(line, alone=not rest.strip()):
        columns = _columns(row.cells for _, row in zip(range(FIRST), _lines(path), strict=False))
        return DataTable(path, "JSON lines", columns, lambda: _lines(path), writer=WRITER)
    rows, form = _read_whole(path)
    return DataTable(path, form, _columns(rows[:FIRST]), lambda: _numbered(rows, path), writer=WRITER)


def _first_line(path: Path) -> tuple[bytes, bytes]:
    """(the first line that is not empty, some of what follows)."""
    with open_text(path) as file:
        while line := read_line(file, path, LONGEST):
            if found := line.removeprefix(BOM).strip():
                return found, read_some(file, path, 1 << 10)
    return b"", b""


def _is_a_row(line: bytes, alone: bool) -> bool:
    """Whether the first line is a row by itself, so that each line is; `alone`: no other line follows."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or any(isinstance(found.get(key), list) for key in INSIDE):
        return False
    lengths = {len(value) if isinstance(value, list) else -1 for value in found.values()}
    return not (alone and len(lengths) == 1 and -1 not in lengths)  # else it is a list a column


def _lines(path: Path) -> Iterator[Row]:
    with open_text(path) as file:
        number = 0
        while True:
            number += 1
            line = read_line(file, path, LONGEST)
            if not line:
                return
            if not line.strip():
                continue
            where = f"{path}:{number}"
            yield Row(where, _object(inputs.parse_json(line.removeprefix(BOM), where, ONE_A_LINE), where))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{where}: is {inputs.kind(value)}, not an object", ONE_A_LINE)
    return value


def _read_whole(path: Path) -> tuple[Sequence[Mapping[str, Any]], str]:
    """(rows, form in words) of a file that is one JSON value."""
    with open_text(path) as file:
        raw = read_some(file, path, LARGEST + 1)
    if len(raw) > LARGEST:
        raise UserError(f"{path}: has over {LARGEST >> 30} GB in one JSON value", ONE_A_LINE)
    found = inputs.parse_json(raw.removeprefix(BOM), path, ONE_A_LINE)
    form = "JSON"
    if isinstance(found, dict):
        inside = next((key for key in INSIDE if isinstance(found.get(key), list)), None)
        if inside is None:
            return _by_column(found, path), "JSON, a list a column"
        found, form = found[inside], f"JSON, rows under {inside!r}"
    if not isinstance(found, list) or not found:
        raise UserError(f"{path}: holds {inputs.kind(found)}, no rows", ONE_A_LINE)
    return [_object(row, f"{path}: row {number}") for number, row in enumerate(found, 1)], form


def _by_column(found: Mapping[str, Any], path: Path) -> Sequence[Mapping[str, Any]]:
    lists = {name: values for name, values in found.items() if isinstance(values, list)}
    lengths = {len(values) for values in lists.values()}
    if len(lists) < len(found) or len(lengths) != 1 or not lengths.pop():
        raise UserError(f"{path}: is an object that holds neither rows nor a list a column", ONE_A_LINE)
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _columns(rows: Any) -> tuple[str, ...]:
    names: dict[str, None] = {}
    for row in rows:
        names |= dict.fromkeys(row)
    return tuple(names)


def _numbered(rows: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Row]:
    for number, row in enumerate(rows, 1):
        yield Row(f"{path}: row {number}", row)


def _write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for cells in rows:
            file.write(to_json(cells) + "\n")


WRITER = TableWriter("JSON lines", JSON, _write_lines)
