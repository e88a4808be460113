"""JSON files of examples and predictions: read whole, every fault named with its file, line, column and cure."""

from __future__ import annotations

from pathlib import Path

from bertkit.errors import UserError
from bertkit.files import inputs
from bertkit.files.inputs import json_fault as fault
from bertkit.files.inputs import kind

__all__ = ["fault", "kind", "read_text"]


def read_text(path: Path, cure: str = "check the path") -> str:
    """A UTF-8 file's text, without its byte-order mark. Raises UserError where it is missing, empty or not UTF-8."""
    text = inputs.read_text(path, cure, inputs.DATA_BYTES)
    if not text.strip():
        raise UserError(f"{path}: is empty", "fetch or make it again")
    return text
