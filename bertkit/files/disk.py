"""Files that are whole or absent: written beside their place, synced, then renamed into it.

Those of ours that are read again and believed are sealed: each carries a hash of its own content, so no damage goes
unseen. A sealed JSON file ends with `"seal"`, the SHA-256 of the same text without that line: of its bytes, so that
not one bit of it can change. A sealed safetensors file has in its metadata the SHA-256 of all that is read of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.errors import UserError
from bertkit.files.inputs import DATA_BYTES, check_file, exists, is_file, is_folder, kind, parse_json, read_bytes
from bertkit.files.processes import is_gone, this_process

LONGEST_WRITE = 86_400.0  # seconds; a temporary file of a process that cannot be seen from here is left for so long
PIECE = 16 << 20  # bytes that are hashed and written at once
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{12})-([0-9]{1,10})-([0-9]{1,18})\.[0-9a-f]{8}\.part", re.DOTALL)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, sync it, and rename it to `path`.

    Raises UserError where the disk is full or read-only; `path` then is what it was before.
    """
    if exists(path) and not is_file(path) and not is_folder(path):  # renamed over, `/dev/null` would be gone
        raise UserError(f"{path}: is a device or a pipe, not a file", "name another file")
    temporary = temporary_beside(path)  # of its own, should two processes write
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent)
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
        if isinstance(error, OSError):
            raise UserError(
                f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}",
                "free some space or choose another folder; what was there before is untouched",
            ) from error
        raise


def temporary_beside(path: Path) -> Path:
    """A name beside `path` that no other writer has, and that tells which process it is of: `sweep` goes by that."""
    me = this_process()
    name = os.fsdecode(os.fsencode(path.name)[:150])  # file systems take 255 bytes
    return path.with_name(f".{name}.{me.place}-{me.pid}-{me.started}.{secrets.token_hex(4)}.part")


def sweep(folder: Path) -> None:
    """Remove the temporary files (and folders) that killed processes left there, and no one else's.

    One of a process that cannot be seen from here, as on another machine, is left unless it is older than a day.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in [entry for entry in entries if _left_over(entry)]:
            with contextlib.suppress(OSError):
                shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)


def _left_over(entry: os.DirEntry[str]) -> bool:
    found = _TEMPORARY.fullmatch(entry.name)
    if found is None:
        return False
    if found[1] == this_process().place:
        return is_gone(int(found[2]), int(found[3]))
    with contextlib.suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > LONGEST_WRITE
    return False


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where the system allows it."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def replace_folder(temporary: Path, folder: Path) -> None:
    """The finished folder takes its place; what was there before goes only then."""
    old = temporary_beside(folder)
    if exists(folder):
        folder.replace(old)
    temporary.replace(folder)
    sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


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


# ---- safetensors ----

# safetensors' names of dtypes that NumPy knows; BF16 it does not, so its bits are widened to float32. In the order in
# which safetensors lays them out in a file.
_DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "C64": "<c8", "F32": "<f4", "U32": "<u4", "I32": "<i4", "BF16": "<u2",
    "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?",
}  # fmt: skip
_MOST_HEADER = 100 << 20  # bytes, safetensors' own bound
_WRONG_HEADER = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)
_SPARSE_FROM = 1 << 30  # bytes; below it a file system may keep a file's content with its name
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items() if name != "BF16"}


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    """A safetensors file, written atomically, byte for byte as safetensors lays it out; returns its SHA-256.

    Not by safetensors' own writer: that makes a temporary file of its own beside ours, which a kill leaves, and the
    file would have to be read again for its hash.
    """
    digest = hashlib.sha256()

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for piece in _pieces(arrays, metadata):
                digest.update(piece)
                file.write(piece)

    write_atomically(path, fill)
    return digest.hexdigest()


def _pieces(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file, one array in memory at most besides those that are given."""
    order = list(_DTYPES)
    kinds = {name: _NAMES[array.dtype.newbyteorder("<")] for name, array in arrays.items()}
    names = sorted(arrays, key=lambda name: (order.index(kinds[name]), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + arrays[name].nbytes
        header[name] = {"dtype": kinds[name], "shape": list(arrays[name].shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    for name in names:
        flat = np.ascontiguousarray(arrays[name], _DTYPES[kinds[name]]).reshape(-1).view(np.uint8)
        for start in range(0, len(flat), PIECE):
            yield flat[start : start + PIECE].data


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file's arrays and metadata, whole in memory. bfloat16 comes as float32.

    Raises UserError, naming the file, where it is missing, cut off or not a safetensors file, and naming the tensor
    where it is there twice or of a dtype that is not read here.
    """
    from safetensors import SafetensorError, deserialize

    size = check_file(path)
    try:
        header = _header(path, size)
        raw = read_bytes(path, most=None)
        entries = deserialize(raw)  # type: ignore[no-untyped-call]
        return {name: _array(entry) for name, entry in entries}, dict(header.get("__metadata__") or {})
    except (SafetensorError, struct.error, *_WRONG_HEADER) as error:
        raise UserError(
            f"{path}: is cut off or no safetensors file ({size} bytes): {error}",
            "copy or make the file again",
        ) from None
    except MemoryError:
        raise UserError(f"{path}: its {size:,} bytes do not fit into memory", "use a machine with more") from None


def _header(path: Path, size: int) -> dict[str, Any]:
    """What the file says of its tensors, compared with its size before the tensors themselves are read."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _MOST_HEADER):
            raise ValueError(f"its header would have {length} bytes")
        header = json.loads(file.read(length), object_pairs_hook=_once)
    found = {name: entry for name, entry in header.items() if name != "__metadata__"}
    end = max((int(entry["data_offsets"][1]) for entry in found.values()), default=0)
    if end != size - 8 - length:
        raise ValueError(f"its tensors have {end} bytes, but {size - 8 - length} are there")
    check_sparse(path, size)
    for name, entry in found.items():
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"{path}: {name} is of dtype {entry['dtype']}, which is not read here",
                "give it in float32, float16 or bfloat16",
            )
    return dict(header)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in pairs:
        if name in made:
            raise ValueError(f"{name} is there twice")
        made[name] = value
    return made


def check_sparse(path: Path, size: int) -> None:
    """Raises UserError for a large file most of which was never written: reading it would fill the memory with 0."""
    if size > _SPARSE_FROM and os.stat(path).st_blocks * 512 < size // 2:
        raise UserError(f"{path}: is sparse: most of its {size:,} bytes were never written", "fetch it again")


def _array(entry: Mapping[str, Any]) -> np.ndarray:
    values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]]).reshape(entry["shape"])
    if entry["dtype"] == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- sealed files ----

SEAL = "sha256"  # its name in a safetensors file's metadata
_LAST = re.compile(rb',\n "seal": "([0-9a-f]{64})"\n}\n\Z')
_DAMAGED = "it is damaged; copy it again or remove it"


def write_sealed(path: Path, values: Mapping[str, Any]) -> None:
    """A JSON object, of at least one value, and its seal."""
    text = to_json(values, indent=1)
    write_text(path, f'{text.removesuffix(chr(10) + "}")},\n "seal": "{_seal_of(text.encode())}"\n}}\n')


def read_sealed(path: Path, cure: str = "remove it") -> dict[str, Any]:
    """What `write_sealed` wrote. Raises UserError where a single bit of it is another, or where it has no seal."""
    raw = read_bytes(path, cure, DATA_BYTES)
    found = _LAST.search(raw)
    if found is None:
        raise UserError(f"{path}: has no seal: it is cut off, or of an earlier bertkit", cure)
    text = raw[: found.start()] + b"\n}"
    if found[1] != _seal_of(text).encode():
        raise UserError(f"{path}: does not match its seal", _DAMAGED)
    value = parse_json(text, path, cure, half_pairs=True)
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {kind(value)}, not a JSON object", cure)
    return value


def write_sealed_arrays(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """A safetensors file and its seal."""
    write_arrays(path, arrays, {**metadata, SEAL: _seal_of_arrays(arrays, metadata)})


def read_sealed_arrays(path: Path, needed: bool = True) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """As `read_arrays`. Raises UserError too where the seal is not of what was read; and, if `needed`, without one."""
    arrays, metadata = read_arrays(path)
    if SEAL not in metadata and not needed:
        return arrays, metadata
    rest = {name: value for name, value in metadata.items() if name != SEAL}
    if metadata.get(SEAL) != _seal_of_arrays(arrays, rest):
        raise UserError(f"{path}: does not match its seal" if SEAL in metadata else f"{path}: has no seal", _DAMAGED)
    return arrays, rest


def _seal_of(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _seal_of_arrays(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> str:
    total = hashlib.sha256(to_json(dict(sorted(metadata.items()))).encode())
    for name, array in sorted(arrays.items()):
        total.update(to_json([name, array.dtype.newbyteorder("<").str, list(array.shape)]).encode())
        total.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return total.hexdigest()
