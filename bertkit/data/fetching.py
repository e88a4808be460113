"""Bringing an entry of the table of sources into the data folder: by one process at a time, with progress, verified."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bertkit.errors import UserError
from bertkit.files.disk import read_sealed, sha256_file, write_sealed
from bertkit.files.downloads import (
    MIRROR,
    SOURCES,
    Checked,
    Download,
    DownloadSource,
    File,
    Progress,
    Unreachable,
    fetch,
    find_sources,
    mirrored,
    part_of,
    unpack_zip,
    verify,
)
from bertkit.files.inputs import is_file
from bertkit.files.locks import locked

EVERY_S = 5.0  # between lines of progress where no bar can be drawn
NOTED = "fetched.json"  # in a folder: checksums that nobody published, of what was fetched first
LARGE = 100_000_000  # bytes; a download of so many is announced with its size
Say = Callable[[str], object]


def lacking(source: DownloadSource, data_dir: Path) -> list[File]:
    """The entry's files that are not in its folder. Raises UserError where one there is not the published file."""
    folder = data_dir / source.folder
    found = check(folder, source.files)
    _refuse_to_overwrite(folder, found)
    return [file for file, each in zip(source.files, found, strict=True) if each.state == "missing"]


def check(folder: Path, files: Sequence[File]) -> list[Checked]:
    """As `verify`; a file of which no checksum is published is compared with what was noted when it was fetched.

    Raises UserError as `verify`, and where the note is damaged.
    """
    noted = _noted(folder)
    known = [
        replace(one, sha256=noted[one.name]) if one.name in noted and not one.published[1] else one for one in files
    ]
    found = verify(folder, known)
    return [
        replace(each, state="noted") if each.state == "ok" and not one.published[1] else each
        for one, each in zip(files, found, strict=True)
    ]


def _noted(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of the folder that was fetched without a published one."""
    if not is_file(folder / NOTED):
        return {}
    found = read_sealed(folder / NOTED, "remove it, if the files beside it are to be trusted").get("files")
    return {str(name): str(each["sha256"]) for name, each in found.items()} if isinstance(found, dict) else {}


def _note(download: Download, folder: Path, wanted: Sequence[File]) -> None:
    """Keep the SHA-256 of what has no published one, so that a later change of it is seen."""
    new = {
        file.name: {"sha256": sha256_file(folder / file.name), "from": download.url}
        for file in wanted
        if not file.published[1]
    }
    if not new:
        return
    before = read_sealed(folder / NOTED)["files"] if is_file(folder / NOTED) else {}
    write_sealed(folder / NOTED, {"files": {**before, **new}})


def bring(source: DownloadSource, data_dir: Path, say: Say, url_base: str = "") -> bool:
    """Download what the entry's folder lacks, verify it and put it there; False where nothing was lacking.

    Another process that brings the same is waited for. Raises Unreachable, with what to do by hand, where a host does
    not give it, and UserError for what is not the published file.
    """
    folder = data_dir / source.folder
    if not lacking(source, data_dir):
        return False
    with locked(folder.with_name(f".{folder.name}.lock"), _Waiting(source, folder, say)):
        missing = lacking(source, data_dir)
        if missing:
            _bring_all(source, folder, data_dir, missing, url_base, say)
    return bool(missing)


def bring_named(names: Sequence[str], data_dir: Path, say: Say, url_base: str = "") -> list[Path]:
    """Bring the entries called so, and say of each what was done. Returns their folders.

    Raises UserError for an unknown name before anything is fetched, and as `bring` does.
    """
    for line in own_sources(url_base):
        say(line)
    if "wikipedia" in map(str.lower, names):
        raise UserError("Wikipedia's text has a language and a date", "bertkit data get wikipedia --language LANG")
    sources = find_sources(names)
    for source in sources:
        folder = data_dir / source.folder
        if (source.size or source.about or 0) >= LARGE and lacking(source, data_dir):
            say(f"{source.name}: {size_of(source)} to fetch into {folder}")
        brought = bring(source, data_dir, say, url_base)
        done = f"is complete; terms of use: {source.terms}" if brought else "was complete already"
        say(f"{source.name}: {folder} {done}" + (f" ({source.homepage})" if brought and source.homepage else ""))
    return [data_dir / source.folder for source in sources]


class _Waiting:
    """Says that another process fetches the entry, and how far it is."""

    def __init__(self, source: DownloadSource, folder: Path, say: Say) -> None:
        self.source, self.folder, self.say = source, folder, say
        self.tell: Progress | None = None

    def __call__(self) -> None:
        if self.tell is None:
            self.say(f"{self.source.name}: waiting for another process to download it")
            self.tell = _lines(self.source.name, self.say)
        parts = (part_of(self.folder / download.name) for download in self.source.downloads)
        sizes = []
        for part in parts:
            with contextlib.suppress(OSError):
                sizes.append(part.lstat().st_size)
        self.tell(sum(sizes), self.source.size)


def _bring_all(
    source: DownloadSource, folder: Path, data_dir: Path, missing: Sequence[File], url_base: str, say: Say
) -> None:
    if not source.downloads:
        from bertkit.data.tasks.sample import write_sample

        write_sample(data_dir)
    for download in source.downloads:
        _bring(download, folder, missing, url_base, say)


def own_sources(url_base: str = "", env: Mapping[str, str] = os.environ) -> list[str]:
    """What is said before anything is fetched where a table or a mirror of one's own stands for the published."""
    lines = [f"the table of sources is laid over by {env[SOURCES]} ({SOURCES})"] if env.get(SOURCES) else []
    return lines + ([f"downloads come from {env[MIRROR]} ({MIRROR})"] if env.get(MIRROR) and not url_base else [])


def size_of(source: DownloadSource) -> str:
    """How many bytes the entry's downloads are, in words."""
    if source.size is None and source.about is not None:
        return f"about {in_bytes(source.about)}"
    return in_bytes(source.size)


def in_bytes(size: object) -> str:
    if not isinstance(size, int):
        return "?"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"


def _refuse_to_overwrite(folder: Path, found: Sequence[Checked]) -> None:
    for each in found:
        if each.state == "differs":
            raise UserError(
                f"{folder / each.name} is there but is not the published file, or not the one that was fetched first"
                f" (its digest is {each.digest}, that one's is {each.published})",
                "move it away, then run the command again",
            )


def _bring(download: Download, folder: Path, missing: Sequence[File], url_base: str, say: Say) -> None:
    """Fetch `download` if it brings one of `missing`, and unpack and verify those."""
    wanted = [file for file in missing if download.unpack or file.name == download.name]
    if not wanted:
        return
    download = replace(download, url=mirrored(download.url, url_base))
    names = [file.name for file in wanted]
    target = folder / download.name
    try:
        with follow(download.name, say) as progress:
            checked = fetch(download, target, progress)
    except Unreachable as error:
        known = f"{', '.join(names)}{f' (or {download.name})' if download.unpack else ''}"
        by_hand = f"put {known} into {folder} by hand, or name a mirror with --url-base"
        raise Unreachable(error.cause, f"{error.cure}, or {by_hand}" if error.cure else by_hand) from None
    if checked.state == "unknown":
        inside = "; the files in it are verified" if all(file.sha256 or file.md5 for file in wanted) else ""
        unverified = f"{download.name} could not be verified, no checksum of it is published: its SHA-256 is"
        say(f"{unverified} {checked.digest}{inside or f'; those of its files are noted in {NOTED}'}")
    if download.unpack:
        unpack_zip(target, folder, download.strip, names)
        target.unlink()
    _demand_published(folder, wanted)
    _note(download, folder, wanted)


def _demand_published(folder: Path, files: Sequence[File]) -> None:
    """Remove what was brought but is not the published file. Raises UserError where that was so."""
    for each in verify(folder, files):
        if each.state == "differs":
            (folder / each.name).unlink()
            raise UserError(
                f"{folder / each.name} has the digest {each.digest}, published is {each.published}",
                "it was removed; run the command again, or name a mirror with --url-base",
            )


@contextlib.contextmanager
def follow(label: str, say: Say) -> Iterator[Progress]:
    """Shows how far a download is: a bar on a terminal, elsewhere a line now and then."""
    if sys.stderr.isatty():
        from rich import progress
        from rich.console import Console

        columns = (
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            progress.DownloadColumn(),
            progress.TransferSpeedColumn(),
            progress.TimeRemainingColumn(),
        )
        with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            bar = bars.add_task(label, total=None)
            yield lambda done, total: bars.update(bar, completed=done, total=total)
    else:
        yield _lines(label, say)


def _lines(label: str, say: Say) -> Progress:
    """A line every few seconds."""
    said = time.monotonic()

    def tell(done: int, total: int | None) -> None:
        nonlocal said
        if time.monotonic() - said >= EVERY_S:
            said = time.monotonic()
            say(f"{label}: {in_bytes(done)}" + (f" of {in_bytes(total)}" if total else ""))

    return tell
