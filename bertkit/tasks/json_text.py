"""JSON files of others: every fault is named with its file, line, column and cure."""

from __future__ import annotations

import json
from pathlib import Path

from bertkit.errors import UserError


def read_text(path: Path, cure: str = "check the path") -> str:
    """A UTF-8 file's text, without its byte-order mark. Raises UserError where it is missing, empty or not UTF-8."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}", cure) from None
    try:
        text = raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 at byte {error.start + 1}", "save the file as UTF-8") from None
    if not text.strip():
        raise UserError(f"{path}: is empty", "fetch or make it again")
    return text


def fault(path: Path, error: ValueError | RecursionError) -> UserError:
    """What json said of the file at `path`, as an error for the user."""
    if isinstance(error, RecursionError):
        return UserError(f"{path}: is nested too deep", "mend the file")
    if not isinstance(error, json.JSONDecodeError):  # a number of thousands of digits
        return UserError(f"{path}: not JSON that can be read: {error}", "mend the file")
    place = f"{path}:{error.lineno}:{error.colno}"
    ended = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
    cure = "the file seems to be cut off: fetch or make it again" if ended else "mend the file"
    return UserError(f"{place}: not JSON: {error.msg}", cure)


def kind(value: object) -> str:
    """What JSON calls a value, for messages."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a text", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), "an object")
