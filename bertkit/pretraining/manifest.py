"""`manifest.json` of prepared data: what went in, what came out, with which settings. Written last.

A folder with a manifest is whole: every shard it names is there in the size it names, and no other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bertkit.disk import write_json
from bertkit.errors import UserError
from bertkit.pretraining.shards import ShardFile

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
    """Raises UserError where the file is not a manifest."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found.pop("manifest") != VERSION:
            raise UserError(f"{path}: is of another version of bertkit", "make the data again")
        found["sources"] = tuple(SourceEntry(**entry) for entry in found["sources"])
        found["shards"] = tuple(ShardEntry(**entry) for entry in found["shards"])
        return Manifest(**found)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path}: is no manifest of prepared data", AGAIN) from None


def read_manifest(place: Path, files: Sequence[ShardFile]) -> Manifest | None:
    """The manifest beside these shards, None where there is none.

    Raises UserError where a shard that it names is missing or has another size, or one is there that it does not name.
    """
    if (place / UNFINISHED).is_dir():
        raise UserError(
            f"{place}: its making was not finished", "run the same `bertkit data prepare` again: it goes on"
        )
    path = place / NAME
    if not path.is_file():
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
