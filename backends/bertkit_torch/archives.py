"""A zip file of `torch.save`, checked before torch reads it: torch itself checks no CRC, and unpacks whatever comes."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from bertkit.plugin import UserError

AGAIN = "copy the file again"
ROOM = 256 << 20  # bytes that unpacking may add: torch.save itself does not compress
CHUNK = 1 << 24  # bytes whose CRC is taken at once


def check_archive(path: Path) -> None:
    """Raises UserError where a record is damaged, unpacks to far more than the file, or it is no file of torch.save.

    Does nothing for the older format, which is no zip file.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            _check_records(path, archive)
            damaged = _damaged(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{path}: is cut off or no torch file: {error}", AGAIN) from None
    if damaged:
        raise UserError(f"{path}: its record {damaged} does not match its CRC", AGAIN)


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
