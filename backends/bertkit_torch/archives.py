"""A zip file of `torch.save`, checked before torch reads it.

Torch itself checks no CRC, unpacks whatever comes, and (2.9, not 2.13) makes a storage as long as the pickle says,
whatever its record holds: what lies behind that in memory would be read as weights.
"""

from __future__ import annotations

import copy
import pickle
import pickletools
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from bertkit.plugin import UserError

AGAIN = "copy the file again"
ROOM = 256 << 20  # bytes that unpacking may add: torch.save itself does not compress
CHUNK = 1 << 24  # bytes whose CRC is taken at once


def check_archive(path: Path) -> bool:
    """Whether its storages were compared with their records; False: the pickle is one that torch is to refuse.

    Raises UserError where a record is damaged, shorter than its storage, unpacks to far more than the file, or it is no
    file of torch.save. Checks nothing of the older format, which is no zip file.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return True
    try:
        with zipfile.ZipFile(path) as archive:
            _check_records(path, archive)
            damaged = _damaged(archive)
            checked = bool(damaged) or _check_storages(path, archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path}: is cut off or no torch file: {error}", AGAIN) from None
    if damaged:
        raise UserError(f"{path}: its record {damaged} does not match its CRC", AGAIN)
    return checked


def _check_records(path: Path, archive: zipfile.ZipFile) -> None:
    records = archive.infolist()
    names = [record.filename for record in records]
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{path}: is a TorchScript program, not weights", "save the model's state_dict() where it is")
    if not any(name.endswith("data.pkl") for name in names):
        raise UserError(f"{path}: is a zip file, but none that torch.save made", "unpack it, or give another file")
    unpacked = sum(record.file_size for record in records)
    if unpacked > path.stat().st_size + ROOM:
        raise UserError(f"{path}: would unpack to {unpacked:,} bytes", "save it anew with torch.save")


def _damaged(archive: zipfile.ZipFile) -> str:
    """The first record that does not match its CRC; none where no record does, since torch can leave CRCs out."""
    wrong, right = "", False
    for record in archive.infolist():
        if _sound(archive, record):
            right = True
        elif not wrong:
            wrong = record.filename
        if wrong and right:
            return wrong
    return ""


def _sound(archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bool:
    try:
        with archive.open(record) as file:
            while file.read(CHUNK):
                pass
    except zipfile.BadZipFile as error:
        if "CRC" in str(error):
            return False
        raise
    return True


# ---- storages ----

ITEM_BYTES = {  # of a storage's class; others have one byte at least
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16, "QInt32Storage": 4,
}  # fmt: skip


def _check_storages(path: Path, archive: zipfile.ZipFile) -> bool:
    """Whether the whole pickle was read. Raises UserError where a storage is said to be longer than its record."""
    pickled = next(name for name in archive.namelist() if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    sizes = {record.filename: record.file_size for record in archive.infolist()}
    unsigned = copy.copy(archive.getinfo(pickled))
    unsigned.CRC = None  # type: ignore[assignment] # torch can leave it out; where others have one, all were compared
    with archive.open(unsigned) as file:
        found = _Storages(file)
        try:
            whole = _is_modest(file)
            file.seek(0)
            if whole:
                found.load()
        except Exception:  # a damaged pickle raises anything
            whole = False
    for key, size in found.sizes.items():
        there = sizes.get(f"{folder}data/{key}", 0)
        if size > there:
            what = f"storage {key} is to have {size:,} bytes, its record has {there:,}"
            raise UserError(f"{path}: is cut off or no torch file: {what}", AGAIN)
    return whole


def _is_modest(file: IO[bytes]) -> bool:
    """Whether a pickle numbers what it remembers one by one, as all that write them do.

    Python's own unpickler makes room for a number's memo before it has read on: 28 GB by five damaged bytes. What else
    asks for room is compared with the bytes that follow by `pickletools`, which raises ValueError.
    """
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            return False
    return True


class _Inert:
    """Stands for whatever class or function a pickle names: called, indexed and filled, it does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def append(self, _: Any) -> None:
        pass

    def extend(self, _: Any) -> None:
        pass


class _Storages(pickle.Unpickler):
    """Collects the storages that a pickle refers to; no class or function of it is looked up, so no code is run."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, _: str, name: str) -> type[_Inert]:
        return type(name, (_Inert,), {})

    def persistent_load(self, said: Any) -> _Inert:
        _, kind, key, _, items = said[:5]
        size = int(items) * ITEM_BYTES.get(getattr(kind, "__name__", ""), 1)
        self.sizes[str(key)] = max(self.sizes.get(str(key), 0), size)
        return _Inert()
