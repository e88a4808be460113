"""`bertkit data get wikipedia`: the dump that is meant, fetched and made into text, each step where an earlier run
stopped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bertkit.data.fetching import own_sources
from bertkit.data.pretraining.wikipedia.dump import (
    FOLDER,
    HOMEPAGE,
    LATEST,
    TERMS,
    Say,
    bring_dump,
    check_asked,
    find_dump,
    folder_of,
)
from bertkit.data.pretraining.wikipedia.extraction import MANIFEST, TEXT, extract
from bertkit.data.pretraining.wikipedia.wikitext import check_parser
from bertkit.errors import UserError
from bertkit.files.disk import read_sealed
from bertkit.files.downloads import DownloadSource, File
from bertkit.files.inputs import exists, inside, is_file, is_folder
from bertkit.files.locks import locked

TITLE = "Wikipedia's articles as text for pre-training, by --language and --date"


def bring_wikipedia(
    data_dir: Path, language: str, date: str, workers: int, say: Say, url_base: str = "", dry_run: bool = False
) -> Path | None:
    """The folder with the text of a Wikipedia, made where it is not there; None for a dry run, which fetches nothing.

    Raises UserError for what can be no dump, and as `bring_dump` and `extract`.
    """
    check_asked(language, date)
    if date != LATEST and (there := _complete(folder_of(data_dir, language, date))):
        say(f"{FOLDER}: {there} was complete already")
        return there
    if dry_run:
        say(f"{FOLDER}: would download the dump of {date} into {folder_of(data_dir, language, date)} and extract it")
        return None
    check_parser()  # before anything is fetched
    for line in own_sources(url_base):
        say(line)
    dump = find_dump(data_dir, language, date, say, url_base)
    folder = folder_of(data_dir, language, dump.date)
    if there := _complete(folder):
        say(f"{FOLDER}: {there} was complete already")
        return there
    with locked(folder.with_name(f".{folder.name}.lock"), _Waiting(folder, say)):
        if there := _complete(folder):  # by the process that was waited for
            return there
        bring_dump(dump, folder, say, url_base)
        manifest = extract(dump, folder, workers or _cores(), say)
    for line in told(manifest):
        say(f"{folder.name}: {line}")
    say(f"{FOLDER}: {folder / TEXT} is complete; terms of use: {TERMS} ({HOMEPAGE})")
    say(f"{FOLDER}: {dump.name} is not needed for training; remove it if you like")
    return folder / TEXT


class _Waiting:
    """Says once that another process makes the same."""

    def __init__(self, folder: Path, say: Say) -> None:
        self.folder, self.say, self.said = folder, say, False

    def __call__(self) -> None:
        if not self.said:
            self.say(f"{FOLDER}: waiting for another process that makes {self.folder}")
        self.said = True


def _complete(folder: Path) -> Path | None:
    return folder / TEXT if is_file(folder / MANIFEST) and is_folder(folder / TEXT) else None


def told(manifest: Mapping[str, Any]) -> list[str]:
    """What was kept and what was left out, in words."""
    size = sum(file["bytes"] for file in manifest["files"]) / 1e6
    counts = dict(manifest["counts"])
    lines = [f"articles: {counts.pop('articles', 0):,}; text: {size:,.1f} MB"]
    rest = [f"{what}: {count:,}" for what, count in sorted(counts.items()) if count]
    return [*lines, f"left out: {'; '.join(rest)}"] if rest else lines


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def entry() -> DownloadSource:
    """Wikipedia in the list of data sets; its folder has one for each dump."""
    return DownloadSource("wikipedia", TITLE, TERMS, HOMEPAGE, FOLDER, (), ())


def found_here(data_dir: Path) -> list[DownloadSource]:
    """The texts that are complete here, with the SHA-256s of their manifests. Raises UserError for a damaged one."""
    root = data_dir / FOLDER
    folders = inside(root) if exists(root) else []
    return [_entry_of(folder) for folder in folders if is_file(folder / MANIFEST)]


def _entry_of(folder: Path) -> DownloadSource:
    manifest = read_sealed(folder / MANIFEST, "extract the dump again")
    try:
        files = tuple(File(file["name"], file["sha256"]) for file in manifest["files"])
    except (KeyError, TypeError):
        raise UserError(f"{folder / MANIFEST}: is not like those that bertkit writes", "remove it") from None
    return DownloadSource("wikipedia", TITLE, TERMS, HOMEPAGE, f"{FOLDER}/{folder.name}/{TEXT}", (), files)
