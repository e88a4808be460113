"""A lock that processes of one host share, gone with the process that holds it."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bertkit.errors import UserError

POLL_S = 0.2
logger = logging.getLogger(__name__)


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
    import fcntl

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
