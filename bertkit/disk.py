"""Files that are whole or absent: written beside their place, synced, then renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.inputs import exists, is_file, is_folder, read_bytes


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and rename it to `path`.

    Raises UserError where the disk is full or read-only; `path` then is what it was before.
    """
    if exists(path) and not is_file(path) and not is_folder(path):  # renamed over, `/dev/null` would be gone
        raise UserError(f"{path}: is a device or a pipe, not a file", "name another file")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # of its own, should two processes write
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # as the user's umask has it; some writers make the file anew with 0600
        write(temporary)
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, UserError):
            raise
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            raise UserError(
                f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}",
                "free some space or choose another folder; what was there before is untouched",
            ) from error
        raise


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(in_utf8(text)))


def in_utf8(text: str) -> bytes:
    """UTF-8 of any text: a file's name that Python could not decode gives its own bytes, or escapes for them."""
    try:
        raw = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair
        raw = text.encode("utf-8", "backslashreplace")
    return raw.decode("utf-8", "backslashreplace").encode("utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, to_json(value, indent=1) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every program reads: null for NaN and infinity, and no half of a character pair from a file's name."""
    text = json.dumps(_finite(value), indent=indent, ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # \udce9 is JSON's own spelling too


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """A safetensors file, written atomically."""
    from safetensors.numpy import save_file

    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    write_atomically(path, lambda temporary: save_file(whole, temporary, dict(metadata)))


# safetensors' names of dtypes that NumPy knows; BF16 it does not, so its bits are widened to float32
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
}  # fmt: skip


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's arrays and metadata, whole in memory. bfloat16 comes as float32.

    Raises UserError, naming the file, where it is missing, cut off or not a safetensors file.
    """
    from safetensors import SafetensorError, deserialize

    raw = read_bytes(path, most=None)
    try:
        entries = deserialize(raw)  # type: ignore[no-untyped-call]
        (length,) = struct.unpack("<Q", raw[:8])
        metadata = json.loads(raw[8 : 8 + length]).get("__metadata__", {})
        return {name: _array(entry) for name, entry in entries}, metadata
    except (SafetensorError, struct.error, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: is cut off or no safetensors file ({len(raw)} bytes): {error}",
            "copy or make the file again",
        ) from None


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
