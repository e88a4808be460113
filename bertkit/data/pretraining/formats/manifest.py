"""`manifest.json` of prepared data: what went in, what came out, with which settings. Written last.

A folder with a manifest is whole: every shard it names is there in the size it names, and no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from bertkit.data.pretraining.formats.shards import ShardFile
from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.disk import write_json

NAME = "manifest.json"
UNFINISHED = ".unfinished"  # a folder beside the shards while they are made
VERSION = 1
AGAIN = "copy the folder again, or make the data again"


@dataclass(frozen=True)
class ShardEntry:
    name: str
    sequences: int
    tokens: int
    masked: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SourceEntry:
    name: str
    bytes: int
    format: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a folder of prepared data holds."""

    settings: Mapping[str, str | int | float | bool]
    documents: int
    sentences: int
    tokens: int  # word pieces of the text, before it was repeated or cut
    sequences: int
    most_masked: int
    notes: Mapping[str, int]  # what was left out or cut, by name
    sources: tuple[SourceEntry, ...]
    shards: tuple[ShardEntry, ...]

    def shard(self, name: str) -> ShardEntry | None:
        return next((entry for entry in self.shards if entry.name == name), None)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_json(folder / NAME, {"manifest": VERSION, **asdict(manifest)})


def load_manifest(path: Path) -> Manifest:
    """Raises UserError, naming what is wrong, where the file is not a manifest."""
    found = inputs.read_object(path, AGAIN)
    if found.get("manifest") != VERSION:
        said = "is of another version of bertkit" if "manifest" in found else "is no manifest of prepared data"
        raise UserError(f"{path}: {said}", "make the data again")
    del found["manifest"]
    sources, shards = (_entries(found.pop(name, None), f"{path}: {name}") for name in ("sources", "shards"))
    settings = inputs.mapping_value(found.pop("settings", None), f"{path}: settings", AGAIN)
    notes = inputs.mapping_value(found.pop("notes", None), f"{path}: notes", AGAIN)
    for name, value in settings.items():
        if not isinstance(value, str | int | float):
            raise UserError(f"{path}: settings.{name} is {inputs.kind(value)}, not a text or a number", AGAIN)
    return Manifest(
        settings,
        **_fields(Manifest, found, str(path), ("settings", "notes", "sources", "shards")),
        notes={
            name: inputs.whole_value(value, f"{path}: notes, {name!r}", cure=AGAIN) for name, value in notes.items()
        },
        sources=tuple(SourceEntry(**_fields(SourceEntry, entry, where)) for entry, where in sources),
        shards=tuple(ShardEntry(**_fields(ShardEntry, entry, where)) for entry, where in shards),
    )


def _entries(value: object, where: str) -> list[tuple[Mapping[str, Any], str]]:
    if not isinstance(value, list):
        raise UserError(f"{where} is {inputs.kind(value)}, not a list", AGAIN)
    return [(inputs.mapping_value(each, f"{where}[{at}]", AGAIN), f"{where}[{at}]") for at, each in enumerate(value)]


def _fields(made: type, found: Mapping[str, Any], where: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """The texts and whole numbers of one of the dataclasses above, each checked; `others` are read elsewhere."""
    kinds = {field.name: field.type for field in fields(made) if field.name not in others}
    if (missing := sorted(set(kinds) - set(found))) or (more := sorted(set(found) - set(kinds))):
        raise UserError(f"{where}: {'lacks ' + missing[0] if missing else 'has an unknown ' + more[0]}", AGAIN)
    for name, kind in kinds.items():
        if kind == "int":
            inputs.whole_value(found[name], f"{where}: {name}", cure=AGAIN)
        elif not isinstance(found[name], str):
            raise UserError(f"{where}: {name} is {inputs.kind(found[name])}, not a text", AGAIN)
    return dict(found)


def read_manifest(place: Path, files: Sequence[ShardFile]) -> Manifest | None:
    """The manifest beside these shards, None where there is none.

    Raises UserError where a shard that it names is missing or has another size, or one is there that it does not name.
    """
    if inputs.is_folder(place / UNFINISHED):
        raise UserError(f"{place}: its making was not finished", "repeat the same `bertkit data prepare` to resume")
    path = place / NAME
    if not inputs.exists(path):
        return None
    manifest = load_manifest(path)
    there = {file.path.name: file.path.stat().st_size for file in files}
    for entry in manifest.shards:
        if entry.name not in there:
            raise UserError(f"{place / entry.name}: is missing; {NAME} names it", AGAIN)
        if there[entry.name] != entry.bytes:
            raise UserError(
                f"{place / entry.name}: has {there[entry.name]:,} bytes, {NAME} says {entry.bytes:,}", AGAIN
            )
    if more := sorted(set(there) - {entry.name for entry in manifest.shards}):
        raise UserError(f"{place / more[0]}: is not in {NAME}", "move it out of the folder, or remove the manifest")
    return manifest
