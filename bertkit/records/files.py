"""Reading and writing run records. The contract for whoever compares, migrates or makes them:

`load(path) -> Record` reads one record; `path` is a record's file or a run's folder (its `record.json`).
`load_all(path) -> list[Record]` also takes a file of several, as `bertkit bench` writes; a record is a list of one.
Both raise UserError, one line with file and cure, for what is missing, cut off, foreign, of another schema, or does not
fit this one. A record that was edited by hand is no error: its `edited` is true, and who shows it says so.

`Record.mapping` is a mapping with exactly the keys of `schema.RunRecord` at every level, whatever the kind (train,
bench, published). null means "not known": it is never 0, and never filled in.
`Record.losses()` gives the losses of all updates, from the record or from the file beside it, whose hash is checked.
`Record.mapping["fairness"]` is flat; `fields.plain_names()` has the words for its fields.

`write(path, mapping)` checks, seals and writes one record, `write_all` several into one file; `blank(kind)` of
`schema` gives the mapping to start from. Published figures are records of kind "published", made in memory with
`sealed(mapping)` and `Record(mapping, path)`; all that their source does not say stays null.

The seal: SHA-256 of the record without its key `sha256`, as JSON with sorted keys, `,` and `:` without spaces, ASCII
only (\\u escapes), floats as Python's shortest repr.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bertkit.errors import UserError
from bertkit.files.disk import to_json, write_json, write_text
from bertkit.files.inputs import DATA_BYTES, is_folder, parse_json, read_bytes, real_value
from bertkit.records.schema import SCHEMA, check

NAME = "record.json"
LOSSES = "losses.json"
INDEX = "suite.json"  # of a folder with a record for each cell of a suite
MOST_LOSSES = 1_000  # in the record itself; more stand in a file beside it


@dataclass(frozen=True)
class Record:
    """One record as it is compared."""

    mapping: Mapping[str, Any]
    path: Path  # of the file that it stands in
    edited: bool = False  # its hash does not match, or is missing: changed after it was written
    place: int | None = None  # in a file of several, from 0

    def losses(self) -> list[float | None] | None:
        """Of every update from the first; None where they are not known.

        Raises UserError where the file that holds them is missing or not the one that was written.
        """
        kept, told = self.mapping["losses"], self.mapping["loss_file"]
        if told is None:
            return kept  # type: ignore[no-any-return]
        path = self.path.parent / Path(told["file"]).name
        raw = read_bytes(path, "copy it from the run's folder, where it stands beside the record", DATA_BYTES)
        if hashlib.sha256(raw).hexdigest() != told["sha256"]:
            raise UserError(f"{path}: is not the file that {self.path.name} was written with", "copy it anew")
        found = parse_json(raw, path)
        if not isinstance(found, list):
            raise UserError(f"{path}: holds no list of losses", "copy it anew")
        return [None if value is None else real_value(value, f"{path}: a loss") for value in found]


def load(path: Path) -> Record:
    """The one record of a file or a run's folder."""
    found = load_all(path)
    if len(found) != 1:
        raise UserError(f"{found[0].path if found else path}: holds {len(found)} records, not one", "name another file")
    return found[0]


def load_all(path: Path) -> list[Record]:
    """All records of a file, or the one of a run's folder."""
    if is_folder(path):
        path = path / NAME
    value = _parsed(path)
    version = value.get("schema") if isinstance(value, dict) else None
    if not isinstance(value, dict) or type(version) is not int or version < 1 or not _is_of_ours(value):
        raise UserError(f"{path}: is no record of bertkit", "give a run's folder, or the record.json in it")
    if version > SCHEMA:
        raise UserError(
            f"{path}: was written by a newer bertkit (record schema {version}, this one reads {SCHEMA})",
            "update bertkit",
        )
    if version < SCHEMA:
        raise UserError(
            f"{path}: was written by an older bertkit (record schema {version}, this one reads {SCHEMA})",
            "make the run again",
        )
    if value.get("kind") != "collection":
        return [_checked(path, value, None)]
    parts = value.get("records")
    if not isinstance(parts, list):
        raise UserError(f"{path}: does not fit record schema {SCHEMA}: records is no list", "make the record again")
    return [_checked(path, part, place) for place, part in enumerate(parts)]


def _parsed(path: Path) -> Any:
    raw = read_bytes(path, "give a run's folder, or the record.json in it", DATA_BYTES)
    return parse_json(raw, path, "copy the file again, or make the run again", half_pairs=True)


def _is_of_ours(value: Mapping[str, Any]) -> bool:
    """A run's record of schema 1 had no kind."""
    return "kind" in value or {"config", "versions"} <= value.keys()


def _checked(path: Path, value: Any, place: int | None) -> Record:
    _fits(path, value)
    return Record(value, path, value["sha256"] != seal(value), place)


def _fits(path: Path, value: Any) -> None:
    try:
        check(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: does not fit record schema {SCHEMA}: {name or 'the record'}: {first['msg']}",
            "undo what was edited, or make the record again",
        ) from None


# ---- writing ----


def seal(mapping: Mapping[str, Any]) -> str:
    """The hash that the record's `sha256` holds."""
    rest = {name: value for name, value in mapping.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def sealed(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The record as it will be read back, checked, with its hash. Raises ValidationError: a fault of who made it."""
    made: dict[str, Any] = json.loads(to_json(mapping))  # tuples are lists then, NaN is null
    made["sha256"] = seal(made)
    check(made)
    return made


def write(path: Path, mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Write one record and, where they are many, its losses beside it; returns the record as written."""
    losses = mapping.get("losses") or ()
    if len(losses) > MOST_LOSSES:
        text = to_json(list(losses)) + "\n"
        write_text(path.with_name(LOSSES), text)
        told = {"file": LOSSES, "sha256": hashlib.sha256(text.encode()).hexdigest(), "count": len(losses)}
        mapping = {**mapping, "losses": None, "loss_file": told}
    made = sealed(mapping)
    write_json(path, made)
    return made


def write_all(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write several records, each of them `sealed`, into one file."""
    write_json(path, collection(records))


def collection(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the file of several records holds."""
    return {"schema": SCHEMA, "kind": "collection", "records": list(records)}
