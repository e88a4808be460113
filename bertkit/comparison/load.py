"""From words of the command line to entries: folders of runs, records' files, globs, each with or without NAME=."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from bertkit.comparison.entries import Entry, entry
from bertkit.errors import UserError
from bertkit.files.inputs import exists, is_folder
from bertkit.records.files import INDEX, NAME, load, load_all

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class RecordSource:
    """A record's file and the label that was given for it."""

    path: Path
    label: str


def read_some(words: Iterable[str], tell: Tell) -> tuple[list[Entry], list[str]]:
    """As `read`. Raises UserError, too, where none of the records could be read."""
    entries, left_out = read(words, tell)
    if not entries and left_out:
        raise UserError(left_out[0], f"and {len(left_out) - 1} more like it" if len(left_out) > 1 else "")
    return entries, left_out


def read(words: Iterable[str], tell: Tell) -> tuple[list[Entry], list[str]]:
    """(entries, a line for each record that could not be read). Raises UserError for a word that names nothing."""
    named = {word: sources_of(word) for word in words}
    sources = list({os.path.realpath(one.path): one for found in named.values() for one in found}.values())
    entries: list[Entry] = []
    left_out = [
        f"{word}: holds no {NAME}; give the folder of a run that came to its end, or one with such folders in it"
        for word, found in named.items()
        if not found
    ]
    for done, source in enumerate(sources):
        tell("records", done, len(sources))
        try:
            entries += [entry(record, source.label) for record in load_all(source.path)]
        except UserError as error:
            left_out.append(str(error))
    return entries, left_out


def read_one(path: Path) -> Entry:
    """The one record of a file or a run's folder, with losses to follow. Raises UserError where it has none."""
    found = entry(load(path.expanduser()))
    if not len(found.losses):
        raise UserError(f"{path}: has no losses by update", "give the record of a training run")
    return found


def sources_of(word: str) -> list[RecordSource]:
    """The records that one word of the command line names; none of a folder that holds none."""
    label, equals, rest = word.partition("=")
    if not equals or exists(Path(word).expanduser()) or "/" in label:
        label, rest = "", word
    if not rest:
        raise UserError(f"{word}: names no record", "give NAME=FOLDER")
    path = Path(rest).expanduser()
    found = [path] if exists(path) else [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    if not found:
        raise UserError(f"{rest}: there is no such folder, file or pattern", "give a run's folder or its record.json")
    return [RecordSource(file, label) for one in found for file in _records(one, alone=exists(path))]


def _records(path: Path, alone: bool) -> list[Path]:
    """A file itself, a run's record, or the records of the runs or of the suite in a folder.

    Of what a pattern matched, files that are none of ours by their name are passed over.
    """
    if not is_folder(path):
        return [path] if alone or path.suffix == ".json" else []
    if exists(path / NAME):
        return [path / NAME]
    if exists(path / INDEX):
        return sorted(file for file in path.glob("[!.]*.json") if file.name != INDEX)
    return sorted(path.glob(f"*/{NAME}"))
