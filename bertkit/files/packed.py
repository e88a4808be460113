"""Files that may be packed: .gz, .bz2, .xz or .zst, told by their names."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from bertkit.errors import UserError
from bertkit.files import inputs


def _open_zst(path: Path, mode: str) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise UserError(f"{path}: .zst needs pyarrow", "pip install pyarrow") from None
    return pa.CompressedInputStream(pa.OSFile(str(path), mode), "zstd")


OPENERS: dict[str, Callable[[Path, str], Any]] = {
    ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": _open_zst,
}  # fmt: skip
PACKED = tuple(OPENERS)
FAILED = "cannot be read or unpacked"


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. Raises UserError where it cannot be opened; `read_some` and `read_line` read it."""
    inputs.check_file(path)
    with inputs.reading(path, what=FAILED):
        file: Any = OPENERS.get(path.suffix, open)(path, "rb")
    with file as opened:
        yield cast("IO[bytes]", opened)


def read_some(file: IO[bytes], path: Path, size: int) -> bytes:
    """So many of the file's bytes, unpacked. Raises UserError where that cannot be done."""
    with inputs.reading(path, what=FAILED):
        return bytes(file.read(size))


def read_line(file: IO[bytes], path: Path, most: int) -> bytes:
    """The next line with its end, cut at `most` bytes; empty at the end of the file. Raises as `read_some`."""
    with inputs.reading(path, what=FAILED):
        return bytes(file.readline(most))


def unpacked_suffix(path: Path) -> str:
    """The suffix that tells the format: ".csv" of reviews.csv.gz."""
    return Path(path.stem).suffix.lower() if path.suffix in OPENERS else path.suffix.lower()
