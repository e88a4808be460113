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


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked. Raises UserError where it cannot be opened; reading it belongs into `reading`."""
    inputs.check_file(path)
    with inputs.reading(path, what="cannot be read or unpacked"):
        file: Any = OPENERS.get(path.suffix, open)(path, "rb")
    with file as opened:
        yield cast("IO[bytes]", opened)


def unpacked_suffix(path: Path) -> str:
    """The suffix that tells the format: ".csv" of reviews.csv.gz."""
    return Path(path.stem).suffix.lower() if path.suffix in OPENERS else path.suffix.lower()
