"""Small SQuAD files, and what reading them gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertkit.data.tasks.squad.reader import Paragraph, read_squad
from bertkit.errors import UserError

CONTEXT = "The Normans were a people of Normandy."
ANSWERED: dict[str, Any] = {
    "id": "q1", "question": "Who?", "answers": [{"text": "The Normans", "answer_start": 0}]
}  # fmt: skip


def squad(*questions: Any, **paragraph: Any) -> dict[str, Any]:
    entry = {"context": CONTEXT, "qas": list(questions)} | paragraph
    return {"version": "1.1", "data": [{"title": "Normans", "paragraphs": [entry]}]}


def write(folder: Path, value: object) -> Path:
    path = folder / "some.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def read(folder: Path, value: object, rows: int = 0) -> list[Paragraph]:
    return list(read_squad(write(folder, value), rows))


def cause(folder: Path, value: object) -> str:
    """What is said of a bad file, with the file's path taken out."""
    with pytest.raises(UserError) as caught:
        read(folder, value)
    assert caught.value.cure
    assert caught.value.cause.startswith(str(folder / "some.json"))
    return caught.value.cause.removeprefix(str(folder / "some.json"))
