"""Which dump of a Wikipedia is meant, and bringing it here: its address, its published SHA-1, the file.

Source: https://dumps.wikimedia.org, whose folders have `WIKI-DATE-sha1sums.txt`; the one in `latest` has the dates in
its names.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bertkit.data.fetching import follow
from bertkit.errors import UserError
from bertkit.files.downloads import Download, Unreachable, fetch, mirrored
from bertkit.files.inputs import exists, read_text

HOST = "https://dumps.wikimedia.org"
FOLDER = "wikipedia"  # under the data folder
LATEST = "latest"
TERMS = "CC BY-SA 4.0 and GFDL: name the articles, whose addresses the text has"
HOMEPAGE = "https://dumps.wikimedia.org/legal.html"
LANGUAGE = re.compile(r"[a-z]{2,12}(-[a-z]{1,12}){0,3}")
DATE = re.compile(r"20\d{6}")
SUMS_BYTES = 4 << 20  # of the file of checksums, of which a wiki's has some 20 kB
Say = Callable[[str], object]


@dataclass(frozen=True)
class Dump:
    """A dump of one day, with the checksum that its publisher gives."""

    language: str
    date: str  # YYYYMMDD
    sha1: str

    @property
    def wiki(self) -> str:
        return wiki_of(self.language)

    @property
    def name(self) -> str:
        return f"{self.wiki}-{self.date}-pages-articles-multistream.xml.bz2"

    @property
    def url(self) -> str:
        return f"{HOST}/{self.wiki}/{self.date}/{self.name}"


def wiki_of(language: str) -> str:
    """What the dumps call the Wikipedia of a language: zh-yue's is zh_yuewiki."""
    return f"{language.replace('-', '_')}wiki"


def check_asked(language: str, date: str) -> None:
    """Raises UserError for what can be no language or no date."""
    if not language:
        raise UserError("which Wikipedia?", "name its language: --language simple, --language de, …")
    if not LANGUAGE.fullmatch(language):
        raise UserError(
            f"--language {language!r} is no Wikipedia's", "name it as in its address: en, de, simple, zh-yue"
        )
    if date != LATEST and not DATE.fullmatch(date):
        raise UserError(f"--date {date!r} is no date of a dump", f"name one as YYYYMMDD, or {LATEST}")


def folder_of(data_dir: Path, language: str, date: str) -> Path:
    """Where the dump of a day and its text are kept."""
    return data_dir / FOLDER / f"{wiki_of(language)}-{date}"


def find_dump(data_dir: Path, language: str, date: str, say: Say, url_base: str = "") -> Dump:
    """The dump that is meant, with its SHA-1. Raises Unreachable, and UserError where there is none of that day."""
    wiki = wiki_of(language)
    name = f"{wiki}-{date}-sha1sums.txt"
    kept = folder_of(data_dir, language, date) / name
    if date == LATEST:  # of its own: what another process, or an earlier one, was told may be no more
        kept = data_dir / FOLDER / f".{os.getpid()}-{name}"
        kept.unlink(missing_ok=True)
    url = f"{HOST}/{wiki}/{date}/{name}"
    try:
        _fetch(Download(name, url=mirrored(url, url_base)), kept, say)
    except Unreachable as error:
        _remove_empty(kept.parent, data_dir)
        by_hand = "check --language and --date" + ("" if date == LATEST else f", or put {name} into {kept.parent}")
        raise Unreachable(error.cause, f"{error.cure}, or {by_hand}" if error.cure else by_hand) from None
    found = dump_in(read_text(kept, most=SUMS_BYTES), language)
    if found is None or date not in (LATEST, found.date):
        kept.unlink()
        _remove_empty(kept.parent, data_dir)
        raise UserError(
            f"{url} has no checksum of {wiki}'s multistream dump", "it may not be finished yet: name an earlier --date"
        )
    if date == LATEST:
        kept.unlink()
        say(f"{FOLDER}: the latest dump of {wiki} is of {found.date}")
    return found


def _remove_empty(folder: Path, data_dir: Path) -> None:
    """Leave no folder where nothing came."""
    with contextlib.suppress(OSError):
        while folder != data_dir:
            folder.rmdir()
            folder = folder.parent


def dump_in(sums: str, language: str) -> Dump | None:
    """The dump that lines of `SHA-1  name` tell of."""
    name = rf"{wiki_of(language)}-({DATE.pattern})-pages-articles-multistream\.xml\.bz2"
    found = re.search(rf"^([0-9a-f]{{40}}) [ *]{name}\r?$", sums, re.MULTILINE)
    return Dump(language, found[2], found[1]) if found else None


def bring_dump(dump: Dump, folder: Path, say: Say, url_base: str = "") -> Path:
    """The dump's file, fetched where it is not here; a broken download is resumed.

    Raises Unreachable, and UserError where what is here or what came is not the published file.
    """
    path = folder / dump.name
    if not exists(path):
        say(f"{FOLDER}: {dump.url} is fetched into {folder}")
    try:
        _fetch(Download(dump.name, sha1=dump.sha1, url=mirrored(dump.url, url_base)), path, say)
    except Unreachable as error:
        by_hand = f"put {dump.name} into {folder} by hand, or name a mirror with --url-base"
        raise Unreachable(error.cause, f"{error.cure}, or {by_hand}" if error.cure else by_hand) from None
    return path


def _fetch(download: Download, path: Path, say: Say) -> None:
    with follow(download.name, say) as progress:
        fetch(download, path, progress)
