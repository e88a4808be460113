"""Published data and checkpoints: the table, fetching that resumes, careful unpacking, verifying.

Nothing reaches its place unverified where ``sources.toml`` has a checksum. BERTKIT_MIRROR names a server that has what
the publishers have, BERTKIT_SOURCES a table of one's own, whose entries take the place of those of the same name.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import lzma
import os
import re
import shutil
import stat
import struct
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal
from urllib.parse import urlsplit

from bertkit.errors import UserError, nearest
from bertkit.files import disk
from bertkit.files.inputs import read_toml
from bertkit.files.packaged import packaged_table
from bertkit.version import __version__

TIMEOUT_S = 30.0  # of silence, not of the whole download
ATTEMPTS = 4  # each goes on where the connection broke
CHUNK = 1 << 18  # bytes
MIRROR, SOURCES = "BERTKIT_MIRROR", "BERTKIT_SOURCES"  # environment
MAX_UNPACKED = 4 << 30  # bytes; the largest archive of the table, BERT large, unpacks to 1.3 GB
WEB = re.compile(r"https?://(\[[\da-fA-F:.]+\]|[\w.-]+)(:\d+)?([/?#]\S*)?")

Progress = Callable[[int, int | None], object]  # (bytes so far, bytes in all if known)
State = Literal["ok", "noted", "differs", "missing", "unknown"]  # noted: as what was fetched first


@dataclass(frozen=True)
class File:
    """A file and its published checksum: a SHA-256, or an MD5 or a SHA-1 where only that is known, or none."""

    name: str
    sha256: str = ""
    md5: str = ""
    sha1: str = ""

    @property
    def published(self) -> tuple[str, str]:
        """(how the checksum is made, the checksum); SHA-256 and "" where none is known."""
        known = (("sha256", self.sha256), ("sha1", self.sha1), ("md5", self.md5))
        return next(((kind, digest) for kind, digest in known if digest), known[0])


@dataclass(frozen=True)
class Download(File):
    """A file that `url` gives; with `unpack`, an archive whose folder `strip` holds the wanted files."""

    url: str = ""
    size: int | None = None  # bytes
    unpack: Literal["", "zip"] = ""
    strip: str = ""


@dataclass(frozen=True)
class DownloadSource:
    """An entry of the table: downloads that leave `files` in `folder`; without any, bertkit writes them."""

    name: str
    title: str
    terms: str
    homepage: str
    folder: str
    downloads: tuple[Download, ...]
    files: tuple[File, ...]
    about: int | None = None  # bytes of the downloads, roughly
    # of published models
    architecture: str = ""  # the size that it has
    aliases: tuple[str, ...] = ()
    hub: str = ""
    casing: Literal["auto", "cased", "uncased"] = "auto"

    @property
    def size(self) -> int | None:
        """Bytes of all downloads, where each is known."""
        sizes = [download.size for download in self.downloads]
        return None if not sizes or None in sizes else sum(size or 0 for size in sizes)


@dataclass(frozen=True)
class Checked:
    """A file compared with its published checksum; `digest` is of the same kind as that, else a SHA-256."""

    name: str
    state: State
    digest: str
    published: str


class Unreachable(UserError):
    """A host does not answer, breaks off, or does not have the file."""


def load_sources(env: Mapping[str, str] = os.environ) -> dict[str, DownloadSource]:
    """The packaged table by name, with the entries of the file that BERTKIT_SOURCES names laid over it.

    Raises UserError for a file that is no such table.
    """
    sources = {name: _source(name, entry) for name, entry in packaged_table("files", "sources.toml").items()}
    own = env.get(SOURCES)
    for name, entry in read_toml(Path(own).expanduser(), f"correct {SOURCES}").items() if own else ():
        try:
            sources[name] = _own_source(name, entry)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise UserError(
                f"{own}: entry {name!r} is not like those of bertkit's sources.toml: {error}", f"correct {SOURCES}"
            ) from None
    return sources


def _source(name: str, entry: Mapping[str, Any]) -> DownloadSource:
    downloads = [{"name": PurePosixPath(each["url"]).name} | each for each in entry["downloads"]]
    made = {
        "downloads": tuple(Download(**each) for each in downloads),
        "files": tuple(File(**each) for each in entry["files"]),
        "aliases": tuple(entry.get("aliases", ())),
    }
    return DownloadSource(name=name, **{**entry, **made})


def _own_source(name: str, entry: Mapping[str, Any]) -> DownloadSource:
    """An entry of the user's table. Raises ValueError where it would lead out of the data folder."""
    source = _source(name, entry)
    folder = PurePosixPath(source.folder)
    if folder.is_absolute() or ".." in folder.parts or not folder.parts:
        raise ValueError(f"folder {source.folder!r} is not below the data folder")
    for file in (*source.files, *source.downloads):
        if not file.name or PurePosixPath(file.name).name != file.name:
            raise ValueError(f"{file.name!r} is not the name of a file")
        if not all(isinstance(digest, str) for digest in (file.sha256, file.md5, file.sha1)):
            raise TypeError(f"the checksum of {file.name} is not a text")
    for download in source.downloads:
        if not isinstance(download.size, int | None) or not isinstance(download.strip, str):
            raise TypeError(f"the size or strip of {download.name} has the wrong type")
    return source


def find_sources(names: Sequence[str]) -> list[DownloadSource]:
    """The entries called `names`, each once. Raises UserError, with the nearest names, for an unknown one."""
    table = load_sources()
    known = {alias: source for source in table.values() for alias in source.aliases} | table
    for name in names:
        if name.lower() not in known:
            raise UserError(f"there is no data called {name!r}", nearest(name.lower(), known))
    return list(dict.fromkeys(known[name.lower()] for name in names))


def mirrored(url: str, base: str = "", env: Mapping[str, str] = os.environ) -> str:
    """Where to ask for `url`: at `base` with its path, at BERTKIT_MIRROR with its host and path, or where it is."""
    parts = urlsplit(url)
    if base:
        return base.rstrip("/") + parts.path
    mirror = env.get(MIRROR, "").rstrip("/")
    return f"{mirror}/{parts.netloc}{parts.path}" if mirror else url


def verify(folder: Path, files: Sequence[File]) -> list[Checked]:
    """Compare `files` in `folder` with the table. Raises UserError where one cannot be read."""
    return [_check(folder / file.name, file) for file in files]


def _check(path: Path, file: File) -> Checked:
    name, published = file.published
    if not path.is_file():
        return Checked(file.name, "missing", "", published)
    kind = partial(hashlib.new, name, usedforsecurity=False)
    try:
        with path.open("rb") as content:
            digest = hashlib.file_digest(content, kind).hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "check its permissions") from None
    state: State = "unknown" if not published else "ok" if digest == published else "differs"
    return Checked(file.name, state, digest, published)


def fetch(download: Download, target: Path, progress: Progress) -> Checked:
    """Download to `target`, resuming the ``.part`` beside it; "ok", or "unknown" if no checksum is published.

    A `target` that is there already is only checked. Raises Unreachable where the host does not give it;
    UserError for a URL not of http(s), a disk not writable, and a wrong digest, after removing the download.
    """
    path = target if target.is_file() else part_of(target)
    if path != target:
        _download(download, path, progress)
    checked = _check(path, download)
    if checked.state == "differs":
        if path != target:
            path.unlink()
        cure = "move it away, then run it again" if path == target else "it was removed; run it again"
        raise UserError(f"{path} has the digest {checked.digest}, published is {checked.published}", cure)
    path.replace(target)
    disk.sync_folder(target.parent)
    return checked


def part_of(target: Path) -> Path:
    """Where the bytes of an unfinished download are."""
    return target.with_name(target.name + ".part")


def _download(download: Download, part: Path, progress: Progress) -> None:
    """Fill `part`, going on where the connection breaks as long as that brings it forward."""
    if not WEB.fullmatch(download.url):
        raise UserError(f"{download.url!r} is not an http(s) URL", "name one like https://mirror.example")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, ATTEMPTS + 1):
            with _open_part(part) as file:
                before = file.tell()
                try:
                    return _receive(download, file, progress)
                except Unreachable:
                    if attempt == ATTEMPTS or file.tell() <= before:
                        raise
    except Unreachable:
        if not part.stat().st_size:
            part.unlink()
        raise
    except OSError as error:
        raise UserError(f"{part}: cannot be written: {error.strerror}", "choose another folder") from None


def _open_part(part: Path) -> IO[bytes]:
    """The file to go on with. Raises UserError for a link or another thing that would lead the bytes elsewhere."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | getattr(os, "O_NOFOLLOW", 0)
    try:
        handle = os.open(part, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO) or part.is_symlink():
            raise UserError(f"{part} is a link or no file: nothing is downloaded into it", "remove it") from None
        raise
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise UserError(f"{part} is a link or no file: nothing is downloaded into it", "remove it")
    file = os.fdopen(handle, "ab")
    file.seek(0, os.SEEK_END)
    return file


def _receive(download: Download, file: IO[bytes], progress: Progress) -> None:
    for offset, total, chunk in _stream(download.url, file.tell()):
        if offset < file.tell():  # the server began again at the first byte
            file.seek(file.truncate(offset))
        file.write(chunk)
        progress(offset + len(chunk), total or download.size)
    file.flush()
    os.fsync(file.fileno())


def _stream(url: str, start: int) -> Iterator[tuple[int, int | None, bytes]]:
    """(offset, size in all if known, bytes) of `url` from `start` on; from 0 if the server has no ranges."""
    host = urlsplit(url).netloc
    headers = {"User-Agent": f"bertkit/{__version__}"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        with urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT_S) as answer:
            offset = start if answer.headers.get("Content-Range", "").startswith(f"bytes {start}-") else 0
            total = None if answer.length is None else offset + answer.length
            while chunk := answer.read(CHUNK):
                yield offset, total, chunk
                offset += len(chunk)
        if total is not None and offset < total:
            raise Unreachable(f"{host} broke off at {offset} of {total} bytes", "run it again to go on")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            raise Unreachable(f"{host} cannot be reached for {url}: {error.code} {error.reason}") from None
        if not error.headers.get("Content-Range", "").endswith(f"/{start}"):  # else all of it is here
            yield from _stream(url, 0)
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        raise Unreachable(f"{host} cannot be reached: {getattr(error, 'reason', error)}") from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect away from the web, nor from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not WEB.fullmatch(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            raise urllib.error.URLError(f"it redirects to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# What zipfile and what it is made of raise of a damaged archive. RuntimeError: encrypted; IndexError: a nameless member
DAMAGED = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, OSError,
    ValueError, IndexError, KeyError, OverflowError, AttributeError, TypeError,
)  # fmt: skip


def unpack_zip(archive: Path, folder: Path, strip: str = "", only: Collection[str] = ()) -> None:
    """Put the files below the archive's folder `strip` into `folder`, or of them `only` these, each whole.

    Raises UserError, before a file is written, for an archive with a member that would land outside `folder`
    or is a link, with more than MAX_UNPACKED wanted, or without a file of `only`; and for a damaged one.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _members(opened, strip, archive)
            if strip and not set(only) <= set(members):  # the publisher packed them without a folder
                members = _members(opened, "", archive) | members
            wanted = {name: members[name] for name in only or members if name in members}
            if absent := set(only) - set(wanted):
                raise UserError(f"{archive} holds no {', '.join(sorted(absent))}", "unpack it by hand")
            # a member cannot outgrow its declared size: zipfile reads no further, then compares the CRC
            if sum(member.file_size for member in wanted.values()) > MAX_UNPACKED:
                raise UserError(f"{archive} would unpack to over {MAX_UNPACKED} bytes", "unpack it by hand")
            for name, member in wanted.items():
                with opened.open(member) as content:
                    disk.write_atomically(folder / name, partial(_copy, content))
    except DAMAGED as error:
        said = str(error) or type(error).__name__
        raise UserError(f"{archive} cannot be unpacked: {said}", "remove it, then run it again") from None


def _members(opened: zipfile.ZipFile, strip: str, archive: Path) -> dict[str, zipfile.ZipInfo]:
    found = {}
    for member in opened.infolist():
        if not member.filename:
            raise zipfile.BadZipFile("a member has no name")
        path = PurePosixPath(member.filename.replace("\\", "/"))
        special = stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR)  # 0: Windows
        if special or path.is_absolute() or ".." in path.parts or ":" in member.filename:
            raise UserError(f"{archive}: {member.filename!r} would leave its folder or is a link", "reject it")
        if not member.is_dir() and path.is_relative_to(strip):
            found[str(path.relative_to(strip))] = member
    return found


def _copy(content: IO[bytes], path: Path) -> None:
    with path.open("wb") as file:
        shutil.copyfileobj(content, file, CHUNK)
