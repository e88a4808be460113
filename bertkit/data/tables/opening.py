"""One door to a table: the format is told by the name, or by the content where the name does not tell."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from pathlib import Path

from bertkit.data.tables.columnar import files_of, open_arrow, open_parquet, open_saved
from bertkit.data.tables.conll import open_conll
from bertkit.data.tables.delimited import open_delimited
from bertkit.data.tables.json_rows import open_json
from bertkit.data.tables.table import BY_THE_FILE, DataTable, TableOptions
from bertkit.files import inputs
from bertkit.files.disk import sha256_file
from bertkit.files.packed import open_text, read_some, unpacked_suffix

JSON = (".json", ".jsonl", ".ndjson")
DELIMITED = (".csv", ".tsv", ".tab", ".txt")


def open_table(path: Path, options: TableOptions = BY_THE_FILE) -> DataTable:
    """Look at the table. Raises UserError where it is missing, empty or none."""
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
    """SHA-256 of the file, or of those of a folder that `datasets` saved, one after another."""
    files = files_of(path)
    if len(files) == 1:
        return sha256_file(files[0])
    return sha256("\n".join(sha256_file(file) for file in files).encode()).hexdigest()


def _head(path: Path) -> bytes:
    with open_text(path) as file:
        return read_some(file, path, 64)
