"""What a file of a corpus is by its first bytes: one of the forms of text that go in, or something else by its name.

A file that is plainly of another form must not become prose, its keys, quotes and tags included.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from bertkit.data.pretraining.prepare.sentences import split_sentences
from bertkit.data.pretraining.prepare.texts import InputFormat
from bertkit.errors import UserError

FINAL = ".!?…\"'”’)»。！？:;"
LEAST_ROWS = 3  # of a table that is told by its rows being alike
ANYWAY = "name text files, or say what it is with --input-format"
SIGNS: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "packed by gzip, and not named .gz"),
    (b"BZh", "packed by bzip2, and not named .bz2"),
    (b"\x28\xb5\x2f\xfd", "packed by Zstandard, and not named .zst"),
    (b"\xfd7zXZ\0", "packed by xz"),
    (b"PK\x03\x04", "a zip archive (or a document that is one)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"%PDF-", "a PDF"),
    (b"{\\rtf", "an RTF document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"ARROW1\0\0", "an Arrow file"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89PNG", "an image"),
    (b"\xff\xd8\xff", "an image"),
    (b"\xff\xfe", "text in UTF-16 or UTF-32, not UTF-8"),
    (b"\xfe\xff", "text in UTF-16, not UTF-8"),
)
TAGS = (
    ("<!doctype html", "HTML"), ("<html", "HTML"),
    ("<mediawiki", "a Wikipedia dump, which `bertkit data get wikipedia` makes into text"),
    ("<?xml", "XML"),
)  # fmt: skip
OBJECT = re.compile(r'\{\s*"(?:[^"\\\n]|\\.)*"\s*:')
COLUMN = re.compile(r'"?[A-Za-z_#][\w #/-]{0,39}"?')


def form_of(head: bytes, path: Path, cut: bool) -> InputFormat:
    """The form of text that a file's start is; `cut`: the file goes on. Raises UserError where it is none."""
    said = next((said for sign, said in SIGNS if head.startswith(sign)), "")
    if not said and head[257:262] == b"ustar":
        said = "a tar archive"
    if said:
        raise UserError(f"{path}: is {said}, not text", "leave it out, or make it UTF-8 text")
    if b"\0" in head:
        raise UserError(f"{path}: is not text: a zero byte at {head.index(0):,}", "leave it out, or make it UTF-8 text")
    text = head.decode("utf-8-sig", "replace").lstrip()
    if text.startswith("<doc "):
        return "wiki"
    if tag := next((said for tag, said in TAGS if text[:20].lower().startswith(tag)), ""):
        raise UserError(f"{path}: is {tag}", ANYWAY)
    if OBJECT.match(text):
        _check_keys(text, path)
        return "jsonl"
    if re.match(r'\[\s*[\[{"]', text) and _is_json_list(text, cut):
        raise UserError(f"{path}: is a JSON list, not a JSON object a line", 'write {"text": "…"} a line')
    lines = text.split("\n")[:-1] if cut else text.split("\n")
    if table := _table(lines):
        raise UserError(f"{path}: is a table of {table}", ANYWAY)
    full = [line for line in map(str.strip, lines) if line]
    ended = sum(line[-1] in FINAL for line in full)
    single = sum(sum(1 for _ in split_sentences(line)) for line in full) <= 1.3 * len(full)
    return "sentences" if len(full) > 1 and ended >= 0.8 * len(full) and single else "raw"


def _check_keys(text: str, path: Path) -> None:
    """Raises UserError where the first object has no "text"; one that cannot be read is left to the reader of lines."""
    try:
        found, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return
    if "text" not in found:
        raise UserError(f'{path}: is JSON without "text": its objects have {keys(found)}', no_text(found))


def keys(found: dict[str, object]) -> str:
    """The first of an object's keys, for messages."""
    shown = ", ".join(repr(key) for key in list(found)[:8])
    return shown + (", …" if len(found) > 8 else "") if found else "no keys"


def no_text(found: dict[str, object]) -> str:
    """What helps where an object has no "text"."""
    other = next((key for key, value in found.items() if isinstance(value, str)), "")
    return f'rename the key that holds the documents{f", as {other!r}," if other else ""} to "text"'


def _is_json_list(text: str, cut: bool) -> bool:
    try:
        _, end = json.JSONDecoder().raw_decode(text)
    except RecursionError:
        return True
    except ValueError:
        return cut and bool(re.match(r'\[\s*(\{\s*"(?:[^"\\\n]|\\.)*"\s*:|"(?:[^"\\\n]|\\.)*"\s*,\s*")', text))
    return not text[end:].strip()


def _table(lines: list[str]) -> str:
    """What a table's rows are parted by, with its columns; "": it is none."""
    full = [line.strip() for line in lines if line.strip()]
    if len(full) < LEAST_ROWS:
        return ""
    tabs = {line.count("\t") for line in full}
    if len(tabs) == 1 and tabs != {0}:
        return f"tab-separated columns ({_columns(full[0].split(chr(9)))})"
    for sign in ",;":
        try:
            rows = [row for row in csv.reader(full, delimiter=sign) if row]
        except csv.Error:  # a cell longer than any of a table
            continue
        header = rows[0]
        alike = {len(row) for row in rows[:-1]} == {len(header)}  # the last one may be cut
        if len(header) > 1 and len(rows) >= LEAST_ROWS and alike and all(map(COLUMN.fullmatch, header)):
            return f"comma-separated values ({_columns(header)})"
    return ""


def _columns(names: list[str]) -> str:
    return ", ".join(name.strip()[:20] for name in names[:6]) + (", …" if len(names) > 6 else "")
