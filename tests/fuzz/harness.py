"""What fuzzing is made of: a reader with its sample, a case drawn from a seed, and the verdict on what came of it."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import resource
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from bertkit.errors import UserError
from fuzz.mutations import Mutation, any_bytes

MEMORY = 2 << 30  # bytes that a reader may take for a small damaged file
SEEN = 1000  # characters of a message


@dataclass(frozen=True)
class Reader:
    """One reader: how a valid file of its kind is made, and how it is read."""

    name: str
    make: Callable[[Path], object]  # writes the sample, with all that is read beside it, into an empty folder
    file: str  # within the folder: the file that is damaged
    read: Callable[[Path], Any]  # the folder -> the value; raises UserError
    mutations: Sequence[Mutation] = (any_bytes,)
    sealed: bool = False  # the format knows when it was damaged: another value must never come of it


@dataclass(frozen=True)
class Verdict:
    """What came of one damaged file."""

    kind: str  # refused, same, other; or what must not be: changed, error, message, value, memory
    detail: str = ""

    @property
    def is_fault(self) -> bool:
        return self.kind not in ("refused", "same", "other")


def case(reader: Reader, sample: bytes, seed: int, number: int) -> bytes:
    """The damaged content of case `number`: the same for the same seed."""
    draw = Random(f"{seed} {reader.name} {number}")  # noqa: S311 - damage, not secrets
    return draw.choice(reader.mutations)(draw, sample)


def judge(reader: Reader, folder: Path, usual: str) -> Verdict:
    """Read the folder and say what came of it; `usual` is the digest of the whole sample's value."""
    before = _memory()
    try:
        found = digest(reader.read(folder))
    except UserError as error:
        said = str(error)
        if (
            not error.cause.strip(";: ")
            or len(said) > SEEN
            or any(ord(letter) < 32 or ord(letter) == 127 for letter in said)
        ):
            return Verdict("message", repr(said[:200]))
        verdict = Verdict("refused", said)
    except Unknown as error:
        return Verdict("value", str(error))
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "bertkit" in frame.filename]
        where = ours[-1] if ours else last
        return Verdict(
            "error", f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:160]!r}"
        )
    else:
        verdict = Verdict("same" if found == usual else "changed" if reader.sealed else "other")
    if _memory() - before > MEMORY:
        return Verdict("memory", f"{(_memory() - before) >> 20:,} MB more than before")
    return verdict


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


# ---- values ----


class Unknown(Exception):
    """A reader gave a value of no type that is meant."""


def digest(value: Any) -> str:
    """The same for equal values, whatever they are made of. Raises Unknown for what no reader should give."""
    total = hashlib.sha256()
    _feed(total, value)
    return total.hexdigest()


def _feed(total: Any, value: Any) -> None:
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise Unknown(f"an array of objects of shape {array.shape}")
        total.update(f"array {array.dtype.str} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    elif value is None or isinstance(value, bool | int | str | bytes | Path):
        shown = value.name if isinstance(value, Path) else value
        total.update(f"{type(value).__name__} {shown!r};".encode("utf-8", "surrogatepass"))
    elif isinstance(value, float):
        total.update(f"float {'nan' if math.isnan(value) else value.hex()};".encode())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        total.update(type(value).__name__.encode())
        for field in dataclasses.fields(value):
            _feed(total, getattr(value, field.name))
    elif isinstance(value, Mapping):
        total.update(b"{")
        for key in sorted(value, key=repr):
            _feed(total, key)
            _feed(total, value[key])
        total.update(b"}")
    elif isinstance(value, list | tuple):
        total.update(b"[")
        for part in value:
            _feed(total, part)
        total.update(b"]")
    elif isinstance(value, set | frozenset):
        _feed(total, sorted(value, key=repr))
    else:
        raise Unknown(f"a value of type {type(value).__name__}")
