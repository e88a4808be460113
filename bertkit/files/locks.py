"""Locks between processes: one that they wait for, and one that refuses whoever comes second.

`locked` is for processes of one host that take turns. The system frees it with the process that holds it.

`alone_in` and `holding` are for one writer at a time in a folder: a lock file says which process works there. It
appears whole or not at all (a hard link, which NFS makes in one step too). What a killed process left is taken over
where that it is gone is certain: on the same machine by its number and start time, in the next turn of the same batch
job, after a restart of the machine. From elsewhere it cannot be known, so the lock is refused and its file named.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bertkit.errors import UserError
from bertkit.files.disk import temporary_beside
from bertkit.files.inputs import read_bytes
from bertkit.files.processes import Owner, this_process, why_gone

NAME = ".bertkit.lock"
POLL_S = 0.2  # between two tries of a lock that is waited for
ATTEMPTS = 20  # others take and free it at the same time, or remove the folder that they had made
MOST_BYTES = 1 << 16
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EMLINK, errno.EXDEV)
logger = logging.getLogger(__name__)


# ---- one writer in a folder ----


@dataclass(frozen=True)
class _Lock:
    """What the file says."""

    what: str
    since: str
    owner: Owner


@contextlib.contextmanager
def alone_in(folder: Path, what: str, wanted: bool = True) -> Iterator[None]:
    """Be the only process that writes in the folder, which is made, and removed again where it stays empty.

    Raises UserError where another is at work there. Not `wanted`: nothing is done, for ranks that write nothing.
    """
    if not wanted:
        yield
        return
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file", "choose another folder with -o")
    with holding(folder / NAME, what, f"{folder}"):
        yield


@contextlib.contextmanager
def holding(lock: Path, what: str, where: str) -> Iterator[None]:
    """Hold the lock file for as long as the block takes. `what` and `where` are for messages."""
    made: list[Path] = []
    me = this_process()
    content = _spelled(_Lock(what, datetime.now(UTC).isoformat(timespec="seconds"), me))
    try:
        _take(lock, content, where, made)
        try:
            yield
        finally:
            if os.getpid() == me.pid:  # else a fork of the process that holds it
                _release(lock, content)
    finally:
        for folder in reversed(made):
            with contextlib.suppress(OSError):  # not empty: that is what it was made for
                folder.rmdir()


def _take(lock: Path, content: bytes, where: str, made: list[Path]) -> None:
    for _ in range(ATTEMPTS):
        try:
            _make_folder(lock.parent, made)
            if _create(lock, content):
                return
            found = _content(lock)
            if found is None:
                continue
            why = _why_gone(lock, found, where)
            if _take_over(lock, found, content):
                logger.warning("%s: the lock that a process left there is taken over: %s", where, why)
                return
        except FileNotFoundError:  # the folder went with the lock of the process that had made it
            continue
        except OSError as error:
            raise UserError(
                f"{where}: the lock {lock.name} cannot be written: {error.strerror}",
                "free some space, or choose another folder",
            ) from None
    raise UserError(f"{where}: other processes take and free it all the time", "choose another folder")


def _make_folder(folder: Path, made: list[Path]) -> None:
    try:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        for place in reversed(missing):
            with contextlib.suppress(FileExistsError):
                place.mkdir()
                made.append(place)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}", "choose another folder with -o") from None


def _create(lock: Path, content: bytes) -> bool:
    """Make the lock file, with its content; False where there is one."""
    temporary = temporary_beside(lock)
    try:
        temporary.write_bytes(content)
        try:
            os.link(temporary, lock)
        except FileExistsError:
            # NFS may have made it and lost the answer
            return os.stat(temporary).st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _create_without_link(lock, content)
        return True
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _create_without_link(lock: Path, content: bytes) -> bool:
    try:
        with lock.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


def _take_over(lock: Path, found: bytes, content: bytes) -> bool:
    """Put our lock in the place of one that was left; False where another process was quicker."""
    with lock.open("rb+") as file:
        with contextlib.suppress(OSError):  # a file system without such locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)) or file.read(MOST_BYTES) != found:
            return False
        temporary = temporary_beside(lock)
        try:
            temporary.write_bytes(content)
            temporary.replace(lock)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return True


def _release(lock: Path, content: bytes) -> None:
    with contextlib.suppress(OSError, UserError):
        if _content(lock) == content:  # else somebody removed it and another process took it
            lock.unlink()


def _content(lock: Path) -> bytes | None:
    """None: it is gone."""
    if not os.path.lexists(lock):
        return None
    return read_bytes(lock, f"remove {lock}, unless a process works there", MOST_BYTES)


def _why_gone(lock: Path, content: bytes, where: str) -> str:
    """In words who had the lock and why it counts no more. Raises UserError where it does."""
    try:
        found = _read(json.loads(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(
            f"{where}: its lock {lock.name} cannot be read", f"remove {lock}, unless a process works there"
        ) from None
    owner, me = found.owner, this_process()
    who = f"process {owner.pid} on {owner.host}, at work since {found.since}"
    if why := why_gone(owner, me):
        return f"{who}: {why}"
    cure = "wait for its end, or choose another folder"
    if owner.place != me.place:
        cure += f"; if that process is gone, remove {lock}"
    raise UserError(f"{where}: {found.what} is under way there ({who})", cure)


def _spelled(lock: _Lock) -> bytes:
    return (json.dumps(asdict(lock), indent=1) + "\n").encode()


def _read(value: Any) -> _Lock:
    types = {"int": int, "str": str}
    owner = {field.name: value["owner"][field.name] for field in fields(Owner)}
    for field in fields(Owner):
        if type(owner[field.name]) is not types[str(field.type)]:
            raise TypeError(field.name)
    return _Lock(str(value["what"]), str(value["since"]), Owner(**owner))


# ---- waiting for one's turn ----


@contextlib.contextmanager
def locked(path: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Hold the lock at `path`; while another process has it, call `waiting` now and then.

    The system lets go of it however its holder ends, so none is ever left over; the file is removed at the end.
    Raises UserError where the folder cannot be written.
    """
    handle = _acquire(path, waiting)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)  # before it is let go of: who waits sees that it is gone, and makes a new one
        os.close(handle)


def _acquire(path: Path, waiting: Callable[[], object]) -> int:
    while True:
        handle = _open(path)
        while not _lock(handle):
            waiting()
            time.sleep(POLL_S)
        if _is_at(handle, path):
            return handle
        os.close(handle)  # its last holder removed it meanwhile


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}", "choose another data folder") from None


def _lock(handle: int) -> bool:
    """False: another process has it. True also where the file system has no locks, with a warning."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        logger.warning("this file system has no locks (%s): do not let two processes fetch at once", error.strerror)
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False
