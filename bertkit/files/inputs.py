"""Text, JSON, TOML and numbers from outside: read in one place, so that whatever is wrong with them is one line.

What comes from a file, a variable or a command line may be anything: a folder where a file is expected, a named pipe
that nobody writes to, a sparse file of terabytes, JSON nested ten thousand levels deep, a number of 5,000 digits, half
of a surrogate pair. Each is a UserError here; nothing else leaves these functions.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import string
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bertkit.errors import UserError

SETTINGS_BYTES = 64 << 20  # a configuration, a vocabulary, a record: none that is meant is larger
SYSTEM_BYTES = 16 << 20  # one of the kernel's files; /proc/cpuinfo of thousands of CPUs has a few MB
DATA_BYTES = 1 << 30  # a file of examples that is read whole
DEEPEST = 32  # tables within tables of TOML; ours have three
_LONG_KEY = re.compile(r"(?:[\w\"'-]{1,200}\s*\.\s*){33}")  # Python's reader takes minutes for a key of many parts
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_KINDS = (
    (stat.S_ISDIR, "is a folder, not a file"),
    (stat.S_ISFIFO, "is a named pipe, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
)


@contextlib.contextmanager
def reading(path: Path, cure: str = "copy or make the file again", what: str = "is damaged") -> Iterator[None]:
    """A library at work on a file: whatever it raises is a UserError that names the file.

    Only calls into the library belong in here: a fault of our own must not be blamed on the file.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path}: {what}: it asks for more memory than there is", cure) from None
    except Exception as error:  # h5py, pyarrow, numpy and zlib raise whatever their parts do
        raise UserError(f"{path}: {what}: {str(error).strip() or type(error).__name__}", cure) from None


# ---- files ----


def exists(path: Path | str) -> bool:
    """Whether something is there. Raises UserError where the system does not tell: a closed folder, a bad name."""
    return _status(path) is not None


def is_folder(path: Path | str) -> bool:
    """As `exists`."""
    found = _status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: Path | str) -> bool:
    """As `exists`; a pipe, a device or a socket is no file."""
    found = _status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def inside(folder: Path) -> list[Path]:
    """What is in a folder, by name. Raises UserError where the system does not tell."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {_reason(error)}", "check the path") from None


def check_file(path: Path, cure: str = "check the path", most: int | None = None) -> int:
    """The bytes of a regular file that can be opened, before a library is let at it.

    Raises UserError for anything else, and for a file of more than `most` bytes.
    """
    handle, size = _open(path, cure, most)
    os.close(handle)
    return size


def read_bytes(path: Path, cure: str = "check the path", most: int | None = SETTINGS_BYTES) -> bytes:
    """A regular file's content. Raises UserError where it is missing, closed, no file, or over `most` bytes."""
    handle, _ = _open(path, cure, most)
    try:
        with open(handle, "rb") as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}", cure) from None


def read_text(path: Path, cure: str = "check the path", most: int = SETTINGS_BYTES) -> str:
    """A UTF-8 file's text, without its byte-order mark. Raises UserError as `read_bytes`, and where it is not UTF-8."""
    raw = read_bytes(path, cure, most)
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1:,}", "save the file as UTF-8") from None


def read_whole_text(path: Path, cure: str = "check the path") -> str:
    """As `read_text`, of a file of examples or answers. Raises UserError where it is empty, too."""
    text = read_text(path, cure, DATA_BYTES)
    if not text.strip():
        raise UserError(f"{path}: is empty", "fetch or make it again")
    return text


def read_text_if_there(path: Path, most: int = SYSTEM_BYTES) -> str:
    """A small file's text without white space around it, as of the kernel's; "" where it cannot be read."""
    try:
        return read_bytes(path, most=most).decode("utf-8", "replace").strip()
    except UserError:
        return ""


def _status(path: Path | str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return None
        raise UserError(f"{path}: cannot be read: {_reason(error)}", "check the path") from None


def _open(path: Path, cure: str, most: int | None) -> tuple[int, int]:
    """(handle, bytes) of a regular file."""
    try:
        # O_NONBLOCK: the opening of a pipe without a writer would never end
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        found = os.fstat(handle)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {_reason(error)}", cure) from None
    wrong = next((said for is_kind, said in _KINDS if is_kind(found.st_mode)), "")
    if most is not None and found.st_size > most:
        wrong = wrong or f"holds {found.st_size:,} bytes, at most {most:,} are read"
    if wrong:
        os.close(handle)
        raise UserError(f"{path}: {wrong}", cure)
    return handle, found.st_size


def _reason(error: OSError | ValueError) -> str:
    """What the system says; ValueError: a NUL in the name."""
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else "its name holds a NUL"


# ---- JSON and TOML ----


def parse_json(text: str | bytes, where: object, cure: str = "correct the file", half_pairs: bool = False) -> Any:
    """What the JSON says. Raises UserError, with line and column, for whatever is wrong with it.

    `half_pairs`: a text may hold half of a surrogate pair, as our own files spell names that are not UTF-8.
    """
    try:
        decoded = text.decode("utf-8").removeprefix("\ufeff") if isinstance(text, bytes) else text
        value = json.loads(decoded)
    except (ValueError, RecursionError) as error:
        raise json_fault(where, error, cure) from None
    if not half_pairs and _ESCAPED_SURROGATE.search(decoded):
        _refuse_half_pairs(value, where)
    return value


def read_json(path: Path, cure: str = "correct the file", most: int = SETTINGS_BYTES, half_pairs: bool = False) -> Any:
    """A file's JSON. Raises UserError as `read_text` and `parse_json`."""
    return parse_json(read_text(path, cure, most), path, cure, half_pairs)


def read_object(
    path: Path, cure: str = "correct the file", most: int = SETTINGS_BYTES, half_pairs: bool = False
) -> dict[str, Any]:
    """As `read_json`, and refuses what is not a JSON object."""
    value = read_json(path, cure, most, half_pairs)
    if not isinstance(value, dict):
        raise UserError(f"{path}: holds {kind(value)}, not a JSON object", cure)
    return value


def json_fault(where: object, error: ValueError | RecursionError, cure: str = "correct the file") -> UserError:
    """What json said of the text at `where`, as an error for the user."""
    if isinstance(error, RecursionError):
        return UserError(f"{where}: is nested too deep", cure)
    if isinstance(error, UnicodeDecodeError):
        return UserError(f"{where}: not UTF-8 at byte {error.start + 1:,}", "save the file as UTF-8")
    if not isinstance(error, json.JSONDecodeError):  # Python's limit on the digits of a number
        return UserError(f"{where}: not JSON that can be read: it holds a number of thousands of digits", cure)
    place = f"{where}:{error.lineno}:{error.colno}"
    ended = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
    return UserError(
        f"{place}: not JSON: {error.msg}", "the file seems to be cut off: fetch or make it again" if ended else cure
    )


def _refuse_half_pairs(value: Any, where: object) -> None:
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found = re.search(r"[\ud800-\udfff]", part)
            if found:
                raise UserError(
                    f"{where}: a text holds half of a surrogate pair, \\u{ord(found[0]):04x}", "correct that character"
                )
        elif isinstance(part, dict):
            waiting += [*part, *part.values()]
        elif isinstance(part, list):
            waiting += part


def kind(value: object) -> str:
    """What JSON calls a value, for messages."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a text", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")


def parse_toml(text: str, where: object, cure: str = "correct the file") -> dict[str, Any]:
    """What the TOML says. Raises UserError for whatever is wrong with it."""
    if _LONG_KEY.search(text):
        raise UserError(f"{where}: is nested too deep", cure)
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise UserError(f"{where}: is nested too deep", cure) from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{where}: is not TOML: {error}", cure) from None
    except ValueError:  # a date that is none, or Python's limit on the digits of a number
        raise UserError(f"{where}: is not TOML: a number or date in it cannot be read", cure) from None
    if _deeper(table, DEEPEST):  # a.a.a.… nests as deep as the line is long
        raise UserError(f"{where}: is nested too deep", cure)
    return table


def _deeper(table: Mapping[str, Any], most: int) -> bool:
    """Whether tables stand within one another more than `most` times."""
    level: list[Any] = [table]
    for _ in range(most):
        level = [part for one in level for part in one.values() if isinstance(part, dict)]
        if not level:
            return False
    return True


def read_toml(path: Path, cure: str = "correct the file") -> dict[str, Any]:
    """A file's TOML. Raises UserError as `read_text` and `parse_toml`."""
    return parse_toml(read_text(path, cure), path, cure)


# ---- numbers ----


def whole_number(text: str, what: str, least: int = 0, most: int = 2**63 - 1, cure: str = "correct it") -> int:
    """The number that a text spells in ASCII digits. Raises UserError for anything else, and out of range."""
    spelled = text.strip(string.whitespace)  # not the separators that str.strip takes too, as \x1f
    number = int(spelled) if _WHOLE.fullmatch(spelled) else None
    if number is None or not least <= number <= most:
        raise UserError(f"{what} is {text!r}, not a whole number {_between(least, most)}", cure)
    return number


def whole_value(value: object, what: str, least: int = 0, most: int = 2**63 - 1, cure: str = "correct it") -> int:
    """As `whole_number`, of a value from JSON or TOML; true and false are no numbers, 3.0 is none either."""
    if type(value) is not int or not least <= value <= most:
        raise UserError(f"{what} is {_shown(value)}, not a whole number {_between(least, most)}", cure)
    return value


def real_value(
    value: object, what: str, least: float = float("-inf"), most: float = float("inf"), cure: str = "correct it"
) -> float:
    """A finite number from JSON or TOML, from `least` to `most`. Raises UserError for anything else."""
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    except OverflowError:
        number = None
    if number is None or not least <= number <= most or abs(number) == float("inf"):
        between = "" if (least, most) == (float("-inf"), float("inf")) else f" {_between(least, most)}"
        raise UserError(f"{what} is {_shown(value)}, not a number{between}", cure)
    return number


def mapping_value(value: object, what: str, cure: str = "correct it") -> Mapping[str, Any]:
    """A JSON object. Raises UserError for anything else."""
    if not isinstance(value, dict):
        raise UserError(f"{what} is {kind(value)}, not an object", cure)
    return value


def _between(least: float, most: float) -> str:
    if most >= 2**63 - 1:
        return f"of at least {least:,}" if least else "of 0 or more"
    return f"from {least:,} to {most:,}"


def _shown(value: object) -> str:
    if type(value) is int and abs(value) >= 10**19:
        return "a number of over 19 digits"
    return repr(value) if isinstance(value, str | int | float | None) else kind(value)
