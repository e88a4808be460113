"""CoNLL's columns: a token a line, its tag in the last column, an empty line between sentences.

Source: Tjong Kim Sang & De Meulder 2003 (CoNLL-2003); lines of `-DOCSTART-` part documents and are no tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bertkit.data.tables.table import DataTable, Row
from bertkit.errors import UserError
from bertkit.files.packed import open_text, read_line

TOKENS, TAGS = "tokens", "tags"  # the columns of the table that it becomes
DOCUMENT = "-DOCSTART-"
LONGEST = 1 << 20  # bytes of a line
ONE_A_LINE = "write a token and its tag in each line"


def open_conll(path: Path) -> DataTable:
    """Look at the first sentence. Raises UserError where it has no second column."""
    separator, columns = None, 0
    for number, line in _lines(path):
        if line.strip() and not _is_comment(line) and not line.startswith(DOCUMENT):
            separator = "\t" if "\t" in line else None
            columns = len(line.split(separator))
            if columns < 2:
                raise UserError(
                    f"{path}:{number}: has one column, so no tag", "a line is a token and its tag, in columns"
                )
            break
    if not columns:
        raise UserError(f"{path}: holds no tokens", ONE_A_LINE)
    form = f"CoNLL's columns ({columns}, {'tabs' if separator else 'spaces'} between)"
    return DataTable(path, form, (TOKENS, TAGS), lambda: _sentences(path, separator, columns))


def _sentences(path: Path, separator: str | None, columns: int) -> Iterator[Row]:
    tokens: list[str] = []
    tags: list[str] = []
    first = 0
    for number, line in _lines(path):
        if not line.strip() or line.startswith(DOCUMENT):
            if tokens:
                yield Row(f"{path}:{first}", {TOKENS: tokens, TAGS: tags})
            tokens, tags = [], []
            continue
        cells = line.split(separator)
        if len(cells) != columns:
            if _is_comment(line):
                continue
            raise UserError(
                f"{path}:{number}: has {len(cells)} columns, not {columns}",
                "part all columns alike: by one tab, or by spaces",
            )
        first = first if tokens else number
        tokens.append(cells[0].strip())
        tags.append(cells[-1].strip())
    if tokens:
        yield Row(f"{path}:{first}", {TOKENS: tokens, TAGS: tags})


def _is_comment(line: str) -> bool:
    """Of CoNLL-U and others: `# sent_id = 7`. A token may be `#` itself, with as many columns as the rest."""
    return line.startswith("# ")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its end)."""
    with open_text(path) as file:
        number = 0
        while True:
            raw = read_line(file, path, LONGEST)
            if not raw:
                return
            number += 1
            try:
                yield number, raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError:
                raise UserError(f"{path}:{number}: is not UTF-8", "save the file as UTF-8") from None
