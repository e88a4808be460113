"""Tables of the model hub's data sets, named as other programs name them: hf://datasets/OWNER/NAME[@REVISION][/PATH].

PATH is a file, a pattern of files, or a folder; without it, or with a folder, the files are chosen whose names have the
split's name in them, as the hub's own viewer does. No code of a data set is run: one without tables is refused.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath

from bertkit.errors import UserError
from bertkit.files import hub
from bertkit.files.downloads import Unreachable
from bertkit.files.packed import unpacked_suffix

FORM = "hf://datasets/OWNER/NAME/PATH"
NAME = re.compile(r"hf:/{1,2}datasets/(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<path>.+?))?/?")
TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet", ".arrow", ".feather", ".txt", ".conll")
SPLITS = {"train": ("train", "training"), "dev": ("validation", "valid", "val", "dev"), "test": ("test",)}
SHOWN = 6  # files in a message


@dataclass(frozen=True)
class HubTable:
    """What a name says."""

    repository: str
    revision: str  # "": the main one
    path: str  # "": by the split


def table_path(name: str | Path, split: str = "test") -> Path:
    """The path that a user's name of a table means: the hub's is fetched where it is not here, ~ is a home folder.

    `split`: train, dev or test, by which a data set's files are chosen that are not named.
    Raises UserError where the hub does not give it, and where the name means no table.
    """
    return local(str(name), split) if str(name).startswith("hf:/") else Path(name).expanduser()


@lru_cache(maxsize=16)  # a process reads one state of the data set, however often it asks
def local(name: str, split: str) -> Path:
    """The file in the hub's cache, or a pattern of several; fetched where they are not there.

    Raises UserError as `table_path`.
    """
    wanted = _parsed(name)
    try:
        if hub.is_offline():
            folder = hub.cached(wanted.repository, kind="dataset", revision=wanted.revision or "main")
            if folder is None:
                raise UserError(f"{name} is not in the hub's cache, and a network is forbidden", "allow it once")
            names: Sequence[str] = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
            chosen, pattern = choose(wanted, names, split)
        else:
            _require_client()
            names = hub.list_data(wanted.repository, wanted.revision)
            chosen, pattern = choose(wanted, names, split)
            folder = hub.fetch(
                wanted.repository, [glob.escape(each) for each in chosen], "dataset", wanted.revision or None
            )
    except Unreachable as error:
        raise UserError(error.cause, "check the name and the network, or name a file here") from None
    return folder / chosen[0] if len(chosen) == 1 else Path(os.path.join(glob.escape(str(folder)), pattern))


def _require_client() -> None:
    if not hub.is_installed():
        raise UserError("data sets of the model hub need huggingface_hub", "pip install 'bertkit[hub]'")


def _parsed(name: str) -> HubTable:
    found = NAME.fullmatch(name)
    if found is None:
        raise UserError(f"{name} names no data set of the model hub", f"write {FORM}, as in hf://datasets/ag/news")
    return HubTable(found["repository"], found["revision"] or "", found["path"] or "")


def choose(wanted: HubTable, names: Sequence[str], split: str) -> tuple[tuple[str, ...], str]:
    """(the data set's files that are meant, a pattern that matches them alone)."""
    where = f"{wanted.repository}/{wanted.path}".rstrip("/")
    tables = sorted(name for name in names if unpacked_suffix(Path(name)) in TABLES)
    if wanted.path in tables:
        return (wanted.path,), wanted.path
    if any(sign in wanted.path for sign in "*?["):
        chosen = [name for name in tables if _matches(name, wanted.path)]
        if not chosen:
            raise UserError(f"{where}: matches no table of the data set", _has(tables))
        return tuple(chosen), wanted.path
    inside = [name for name in tables if not wanted.path or name.startswith(f"{wanted.path}/")]
    chosen = [name for name in inside if _is_of(name, wanted.path, split)]
    if not chosen:
        raise UserError(f"{where}: has no table for {split}", _has(inside or tables))
    pattern = _common(chosen)
    kinds = {(PurePosixPath(name).parent, PurePosixPath(name).suffix) for name in chosen}  # of one table it is one
    if len(kinds) > 1 or [name for name in tables if _matches(name, pattern)] != chosen:
        raise UserError(f"{where}: has several tables for {split}", _has(chosen))
    return tuple(chosen), pattern


def _matches(name: str, pattern: str) -> bool:
    """As on a disk: a star does not reach over a folder's end."""
    one, other = name.split("/"), pattern.split("/")
    return len(one) == len(other) and all(map(fnmatchcase, one, other))


def _is_of(name: str, folder: str, split: str) -> bool:
    """Whether one of the words of the file's name, or of a folder's below `folder`, is the split's."""
    below = name[len(folder) :] if folder else name
    return not {*re.split(r"[^a-z0-9]+", below.lower())}.isdisjoint(SPLITS[split])


def _common(names: Sequence[str]) -> str:
    """A pattern of what the names begin and end with."""
    if len(names) == 1:
        return names[0]
    begin = os.path.commonprefix(list(names))  # noqa: RUF071 - characters are meant
    rests = [name[len(begin) :][::-1] for name in names]
    end = os.path.commonprefix(rests)[::-1]  # noqa: RUF071
    return f"{glob.escape(begin)}*{glob.escape(end)}"


def _has(names: Sequence[str]) -> str:
    if not names:
        return "it has none of the formats that bertkit reads, and no code of a data set is run"
    return "name one: " + ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
