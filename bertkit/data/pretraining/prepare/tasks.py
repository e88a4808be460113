"""A step of the work as workers are given it, wherever they are.

Little is sent: the folder's path, and what tells whether the worker sees the same files and would write the same bytes.
"""

from __future__ import annotations

import functools
import socket
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bertkit.data.pretraining.prepare.work import Work, is_noted, key_of, load_work
from bertkit.distributed.workers import Done
from bertkit.errors import UserError
from bertkit.files.inputs import is_file
from bertkit.version import __version__

Step = Callable[[Work, int], Done]
SHARE = "keep corpus, vocabulary and output folder where all hosts see them under the same paths"
WRITERS = {"parquet": ("pyarrow",), "hdf5": ("h5py",), "tfrecord": ()}


class WorkTask:
    """`step(work, number)` as a function of the number. Another process reads the work in its folder, once."""

    def __init__(self, step: Step, work: Work) -> None:
        self.step, self._work = step, work
        self._seen = functools.partial(
            _opened, work.out.absolute(), key_of(work), work.vocabulary.digest, versions(work.settings.format)
        )

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_work": None}

    def __call__(self, number: int) -> Done:
        """Raises UserError where this process does not see what the command sees."""
        return self.step(self._work or self._seen(), number)


def versions(format: str) -> tuple[tuple[str, str], ...]:
    """(package, version) of all that the bytes of the shards depend on."""
    return (("bertkit", __version__), *((name, _version(name)) for name in ("numpy", "tokenizers", *WRITERS[format])))


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


@functools.lru_cache(maxsize=1)  # a worker may live longer than one work
def _opened(out: Path, key: str, vocabulary: str, wanted: tuple[tuple[str, str], ...]) -> Work:
    host = socket.gethostname()
    for name, number in wanted:
        here = __version__ if name == "bertkit" else _version(name)
        if here != number:
            raise UserError(
                f"a worker on {host} has {name} {here} where the command has {number}, so its bytes may differ",
                "install the same versions on all hosts",
            )
    if not is_noted(out, key):
        raise UserError(f"a worker on {host} does not see the work in {out}", SHARE)
    try:
        work = load_work(out)
    except UserError as error:
        raise UserError(f"a worker on {host} cannot read the work: {error.cause}", SHARE) from None
    if work.vocabulary.digest != vocabulary:
        raise UserError(f"a worker on {host} sees another vocabulary in {work.vocabulary.path}", SHARE)
    for source in work.sources:
        if not is_file(source.path) or source.path.stat().st_size != source.bytes:
            raise UserError(f"a worker on {host} does not see {source.path} of {source.bytes} bytes", SHARE)
    return work
