"""Parquet and Arrow files, and folders that Hugging Face's `datasets` saved: read in batches by pyarrow."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bertkit.data.tables.table import DataTable, Row, TableWriter
from bertkit.errors import UserError
from bertkit.files import inputs

BATCH = 1024  # rows
WRITTEN = 1 << 16  # rows of a row group
MAGIC = b"ARROW1"  # of a file; a stream has none
STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"


def open_parquet(path: Path) -> DataTable:
    """Look at the file's footer. Raises UserError where it is damaged."""
    inputs.check_file(path)
    pq = _parquet(path)
    with inputs.reading(path, what="is cut off or no Parquet file"), pq.ParquetFile(path) as opened:
        schema = opened.schema_arrow
        columns = tuple(schema.names)
    return DataTable(
        path, "Parquet", columns, lambda: _parquet_rows(path), names=_names(schema), writer=_writer(schema)
    )


def open_arrow(path: Path) -> DataTable:
    """Look at the file's schema. Raises UserError where it is damaged."""
    return _table(path, (path,), "Arrow", {})


def open_saved(path: Path) -> DataTable:
    """The folder that `Dataset.save_to_disk` made. Raises UserError for a folder of another kind."""
    if inputs.is_file(path / SPLITS):
        found = inputs.read_object(path / SPLITS).get("splits") or []
        raise UserError(f"{path}: holds the splits {', '.join(map(str, found))}", f"name one of them: {path}/train")
    if not inputs.is_file(path / STATE):
        raise UserError(f"{path}: is a folder, and none that `datasets` saved", "name a file")
    files = files_of(path)
    info = inputs.read_object(path / INFO) if inputs.is_file(path / INFO) else {}
    return _table(path, files, "a folder that `datasets` saved", _class_names(info))


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that hold the rows of `path`: itself, or those that the state.json of a saved folder names.

    Raises UserError where that names none.
    """
    if not inputs.is_folder(path):
        return (path,)
    entries = inputs.read_object(path / STATE).get("_data_files")
    listed = (
        [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    )
    names = [name for name in listed if isinstance(name, str) and Path(name).name == name]
    if not names or len(names) < len(listed):
        raise UserError(f"{path / STATE}: names no data files", "save the data set again")
    return tuple(path / name for name in names)


def _table(path: Path, files: tuple[Path, ...], form: str, names: Mapping[str, tuple[str, ...]]) -> DataTable:
    with _opened(files[0]) as reader, inputs.reading(files[0], what="is cut off or no Arrow file"):
        schema = reader.schema
        columns = tuple(schema.names)  # decodes them
    rows = functools.partial(_arrow_rows, path, files)
    return DataTable(path, form, columns, rows, names=dict(names) or _names(schema), writer=_writer(schema))


def _parquet_rows(path: Path) -> Iterator[Row]:
    with inputs.reading(path), _parquet(path).ParquetFile(path) as opened:
        batches = iter(opened.iter_batches(BATCH))
        yield from _numbered(path, batches)


def _arrow_rows(path: Path, files: tuple[Path, ...]) -> Iterator[Row]:
    def batches() -> Iterator[Any]:
        for file in files:
            with _opened(file) as reader:
                if hasattr(reader, "num_record_batches"):
                    yield from (reader.get_batch(number) for number in range(reader.num_record_batches))
                else:
                    yield from reader

    yield from _numbered(path, batches())


def _numbered(path: Path, batches: Iterator[Any]) -> Iterator[Row]:
    number = 0
    while True:
        with inputs.reading(path):
            batch = next(batches, None)
            if batch is not None:
                batch.validate(full=True)  # damaged offsets would end the process
            rows = batch.to_pylist() if batch is not None else []
        if batch is None:
            return
        for row in rows:
            number += 1
            yield Row(f"{path}: row {number}", row)


def _opened(path: Path) -> Any:
    """A reader of an Arrow file, or of an Arrow stream, which `datasets` writes."""
    inputs.check_file(path)
    try:
        import pyarrow as pa
    except ImportError:
        raise UserError(f"{path}: Arrow files need pyarrow", "pip install pyarrow") from None
    with inputs.reading(path, what="is cut off or no Arrow file"):
        source = pa.memory_map(str(path))
        kind = source.read(len(MAGIC))
        source.seek(0)
        return pa.ipc.open_file(source) if kind == MAGIC else pa.ipc.open_stream(source)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"{path}: Parquet files need pyarrow", "pip install pyarrow") from None
    return pq


def _names(schema: Any) -> dict[str, tuple[str, ...]]:
    """The names of numbered classes that `datasets` wrote into the schema's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    try:
        found = json.loads(raw) if raw else {}
    except (ValueError, RecursionError):
        return {}
    return _class_names(found.get("info", {}) if isinstance(found, dict) else {})


def _class_names(info: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    features = info.get("features")
    found: dict[str, tuple[str, ...]] = {}
    for name, feature in features.items() if isinstance(features, dict) else ():
        inner = feature.get("feature", feature) if isinstance(feature, dict) else {}
        names = inner.get("names") if isinstance(inner, dict) and inner.get("_type") == "ClassLabel" else None
        if isinstance(names, list) and all(isinstance(one, str) for one in names):
            found[name] = tuple(names)
    return found


def _writer(schema: Any) -> TableWriter:
    return TableWriter("Parquet", (".parquet",), functools.partial(_write_parquet, schema))


def _write_parquet(schema: Any, path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    import pyarrow as pa

    waiting = iter(rows)
    with _parquet(path).ParquetWriter(path, schema) as writer:
        while part := list(itertools.islice(waiting, WRITTEN)):
            writer.write_table(pa.Table.from_pylist(part, schema=schema))
