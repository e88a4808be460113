"""One door to a table: the format is told by the name, or by the content where the name does not tell."""

from __future__ import annotations

import dataclasses
import glob
import itertools
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from bertkit.data.tables.columnar import files_of, open_arrow, open_parquet, open_saved
from bertkit.data.tables.conll import open_conll
from bertkit.data.tables.delimited import open_delimited
from bertkit.data.tables.json_rows import JSON, open_json
from bertkit.data.tables.table import BY_THE_FILE, DataTable, Row, TableOptions
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import sha256_file
from bertkit.files.packed import open_text, read_some, unpacked_suffix

DELIMITED = (".csv", ".tsv", ".tab", ".txt")


def open_table(path: Path, options: TableOptions = BY_THE_FILE) -> DataTable:
    """Look at the table; several files by a pattern, as data/*.csv, are one.

    Raises UserError where it is missing, empty or none, and where several have different columns.
    """
    if is_pattern(path):
        return _joined(path, [_open_one(each, options) for each in matching(path)])
    return _open_one(path, options)


def is_pattern(path: Path) -> bool:
    """Whether `path` is to match files rather than to be one."""
    return glob.has_magic(str(path)) and not inputs.exists(path)


def matching(path: Path) -> list[Path]:
    """The files that a pattern matches, in the order of their names. Raises UserError where there is none."""
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if not Path(name).is_dir()]
    if not found:
        raise UserError(f"{path}: matches no file", "check the pattern, and quote it from the shell")
    return found


def _joined(path: Path, tables: Sequence[DataTable]) -> DataTable:
    first = tables[0]
    for table in tables[1:]:
        if set(table.columns) != set(first.columns):
            other = sorted(set(table.columns) ^ set(first.columns))
            raise UserError(
                f"{table.path}: has other columns than {first.path}: {', '.join(other[:6])}", "name files of one kind"
            )
        if table.names != first.names:
            raise UserError(f"{table.path}: numbers its classes otherwise than {first.path}", "name files of one kind")
    guesses = dict.fromkeys(guess for table in tables for guess in table.guesses)

    def rows() -> Iterator[Row]:
        return itertools.chain.from_iterable(table.rows() for table in tables)

    form = f"{len(tables)} files, {first.form}" if len(tables) > 1 else first.form
    return dataclasses.replace(first, path=path, form=form, rows=rows, guesses=tuple(guesses))


def _open_one(path: Path, options: TableOptions) -> DataTable:
    if not inputs.is_folder(path):
        inputs.check_file(path)
    found = _open(path, options)
    of_csv = {"delimiter": options.delimiter, "header": options.header, "encoding": options.encoding}
    unused = [f"table.{name}" for name, value in of_csv.items() if value not in ("", None)]
    if not unused or found.delimited:
        return found
    note = f"{' and '.join(unused)} are for CSV, so not used: {path} is {found.form}"
    return dataclasses.replace(found, guesses=(*found.guesses, note))


def _open(path: Path, options: TableOptions) -> DataTable:
    if inputs.is_folder(path):
        return open_saved(path)
    suffix = unpacked_suffix(path)
    head = _head(path)
    if suffix == ".parquet" or head.startswith(b"PAR1"):
        return open_parquet(path)
    if suffix in (".arrow", ".feather") or head.startswith(b"ARROW1"):
        return open_arrow(path)
    if suffix in JSON or (suffix not in DELIMITED and head.lstrip()[:1] in (b"{", b"[")):
        return open_json(path)
    return open_conll(path) if options.conll else open_delimited(path, options)


def digest_of(path: Path) -> str:
    """SHA-256 of the file, or of several, one after another: those of a pattern, or of a folder of `datasets`."""
    files = [file for each in (matching(path) if is_pattern(path) else [path]) for file in files_of(each)]
    if len(files) == 1:
        return sha256_file(files[0])
    return sha256("\n".join(sha256_file(file) for file in files).encode()).hexdigest()


def _head(path: Path) -> bytes:
    with open_text(path) as file:
        return read_some(file, path, 64)
