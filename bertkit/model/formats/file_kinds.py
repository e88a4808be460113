"""What a file is by its first and last bytes, so that one of another kind is called by its name, not damaged."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bertkit.errors import UserError
from bertkit.files.disk import check_sparse
from bertkit.files.inputs import check_file
from bertkit.model.formats.tf1_table import MAGIC

Kind = Literal["torch", "safetensors"]
TORCH = (".bin", ".pt", ".pth", ".ckpt")  # endings of what `torch.save` writes; .ckpt: as Lightning calls it
CUT = "fetch or copy the file again"
V1 = (
    "is a TensorFlow 1 checkpoint in the old format V1, one file without an .index, which is not read here",
    "load it in TensorFlow and save it with tf.train.Saver(write_version=tf.train.SaverDef.V2)",
)
# first bytes, what the file is, what helps
_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "is an HDF5 file, as Keras saves models", "give the PyTorch or safetensors weights"),
    (b"version https://git-lfs", "is a pointer of Git LFS, not the weights themselves", "run `git lfs pull` there"),
    (b"<!DOCTYPE", "is a web page, not weights", "fetch the file itself"),
    (b"<!doctype", "is a web page, not weights", "fetch the file itself"),
    (b"<html", "is a web page, not weights", "fetch the file itself"),
    (b"\x1f\x8b", "is compressed with gzip", "unpack it first"),
)


@dataclass(frozen=True)
class Unread:
    """A tensor of a file that no array can hold."""

    why: str  # as in "NAME is quantized (qint8)"
    shape: tuple[int, ...]


def check_kind(path: Path, wanted: Kind | None = None) -> int:
    """The bytes of a regular file that may be of the kind that is wanted; None: of any kind that has no name here.

    Raises UserError where it is recognisably something else, empty, or a sparse file.
    """
    size = check_file(path)
    head, tail = _ends(path, size)
    if not size:
        raise UserError(f"{path}: is empty", CUT)
    check_sparse(path, size)
    if is_table(tail):
        raise UserError(f"{path}: {V1[0]}", V1[1])
    for start, what, cure in _OTHERS:
        if head.startswith(start):
            raise UserError(f"{path}: {what}", cure)
    if wanted == "torch" and _is_safetensors(head, size):
        raise UserError(f"{path}: is a safetensors file", "give it the ending .safetensors")
    if wanted == "safetensors" and head.startswith((b"PK\x03\x04", b"\x80\x02")):
        raise UserError(f"{path}: is a file of torch.save", "give it the ending .bin")
    return size


def old_tf1(files: Iterable[Path]) -> Path | None:
    """The first of the files that is a TensorFlow 1 checkpoint in the format V1."""
    return next((path for path in files if path.is_file() and is_table(_ends(path, path.stat().st_size)[1])), None)


def is_table(tail: bytes) -> bool:
    """Whether a file that ends so is one of TensorFlow's table files."""
    return tail.endswith(struct.pack("<Q", MAGIC))


def _ends(path: Path, size: int) -> tuple[bytes, bytes]:
    try:
        with path.open("rb") as file:
            head = file.read(32)
            file.seek(max(0, size - 8))
            return head, file.read(8)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", "check the path") from None


def _is_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int(struct.unpack("<Q", head[:8])[0]) <= size - 8
