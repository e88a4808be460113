"""CSV, TSV and their relatives: delimiter, quotes, header and encoding are told by the beginning of the file, and said.

Reading is strict: a row of another width, a quote that nothing closes and bytes that are no text are named with their
line. Source of the quoting rules: RFC 4180.
"""

from __future__ import annotations

import codecs
import csv
import functools
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bertkit.data.tables.table import DataTable, Row, TableOptions, TableWriter, number_of
from bertkit.errors import UserError
from bertkit.files.inputs import reading
from bertkit.files.packed import FAILED, open_text, read_some, unpacked_suffix

LOOK = 1 << 18  # bytes of a file that it is told by
DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}
QUOTE = '"'
NONE = "\x1f"  # of one column: a sign that no text has
BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
FALLBACK = "cp1252"  # Windows' Western European, which spreadsheets write
LONGEST_NAME = 80  # characters; a longer cell is a text, not a column's name
MEND = "correct the line, or put double quotes around cells that hold the delimiter"
# What the csv module says of a row that begins on the line that is named.
FAULTS = {"unexpected end of data": "a quote opens in this row and is never closed"}
SAY_DELIMITER = f"{MEND}; or name the delimiter with --set table.delimiter=…"
SAY_ENCODING = "name its encoding with --set table.encoding=…"


@dataclass(frozen=True)
class _Dialect:
    """How a file is cut into cells."""

    delimiter: str
    quoted: bool  # whether double quotes hold cells together
    encoding: str

    def cells(self, lines: Iterable[str]) -> Any:
        """The csv module's reader, which tells `line_num`; strict where there are quotes to be strict about."""
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)

    def spelled(self, cells: Sequence[str]) -> str:
        """A row of at least one cell as a line, which `cells` reads again."""
        if self.quoted:
            signs = (self.delimiter, '"', "\r", "\n")
            cells = [f'"{cell.replace(QUOTE, QUOTE * 2)}"' if any(s in cell for s in signs) else cell for cell in cells]
        return self.delimiter.join(cells) or '""'


def open_delimited(path: Path, options: TableOptions) -> DataTable:
    """Look at the file. Raises UserError where it is empty or is no text."""
    head, whole = _head(path)
    encoding = options.encoding or _encoding(head, whole)
    text = _decoded(head, encoding, path, whole)
    if not text.strip():
        raise UserError(f"{path}: is empty", "name a file with rows")
    dialect = _dialect(text, whole, encoding, options, unpacked_suffix(path))
    first_rows, _ = _sample(text, dialect, whole)
    if not first_rows:
        raise UserError(
            f"{path}: its first row cannot be read", f"{MEND}; or name the delimiter with --set table.delimiter=…"
        )
    header = _has_header(first_rows) if options.header is None else options.header
    columns = _names(first_rows[0], path) if header else tuple(str(number) for number in range(len(first_rows[0])))
    called = f"{DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))}-delimited"
    called = "one column" if dialect.delimiter == NONE else called
    form = f"{called}, {'with' if header else 'without'} a header, {encoding.removesuffix('-sig')}"
    guesses = []
    if encoding == FALLBACK and not options.encoding:
        guesses.append(
            f"{path} is not UTF-8 and is read as Windows-1252; if that is wrong, say --set table.encoding=NAME"
        )
    if not header and options.header is None:
        guesses.append(
            f"{path} seems to have no header, so its columns are 0, 1, …; if it has one, say --set table.header=true"
        )
    write = functools.partial(_write, dialect, columns, header)
    writer = TableWriter(f"{called}, UTF-8", (".csv", ".tsv", ".tab", ".txt"), write)
    rows = functools.partial(_rows, path, dialect, columns, header)
    return DataTable(path, form, columns, rows, tuple(guesses), True, writer=writer)


def _head(path: Path) -> tuple[bytes, bool]:
    """(the file's beginning, whether that is all of it)."""
    with open_text(path) as file:
        head = read_some(file, path, LOOK + 1)
    return head[:LOOK], len(head) <= LOOK


def _encoding(head: bytes, whole: bool) -> str:
    for mark, name in BOMS:
        if head.startswith(mark):
            return name
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError:
        return FALLBACK
    return "utf-8"


def _decoded(head: bytes, encoding: str, path: Path, whole: bool) -> str:
    try:
        return codecs.getincrementaldecoder(encoding)().decode(head, final=whole)
    except LookupError:
        raise UserError(f"there is no encoding {encoding!r}", "use utf-8, utf-16, cp1252, …") from None
    except UnicodeError as error:
        raise UserError(f"{path}: is not {encoding}: {error}", SAY_ENCODING) from None


# ---- looking ----


def _dialect(text: str, whole: bool, encoding: str, options: TableOptions, suffix: str) -> _Dialect:
    """By which delimiter the first rows have the same, largest number of cells; where by none, the first row tells."""
    if options.delimiter:
        mark = "\t" if options.delimiter.lower() in ("tab", "\\t", "\t") else options.delimiter
        if len(mark) != 1 or mark in '"\r\n':
            raise UserError(f"table.delimiter {options.delimiter!r} is not one character", "use , or ; or | or tab")
        return _quoted(text, whole, encoding, mark)
    tries = ["\t", *DELIMITERS] if suffix == ".tsv" else [*DELIMITERS]
    found = [_quoted(text, whole, encoding, mark) for mark in tries]
    widths = [_width(text, dialect, whole) for dialect in found]
    if max(widths) < 2:
        widths = [len(next(iter(_sample(text, dialect, whole)[0]), ())) for dialect in found]
        if max(widths) < 2:
            return _Dialect(NONE, True, encoding)
    return found[widths.index(max(widths))]


def _quoted(text: str, whole: bool, encoding: str, mark: str) -> _Dialect:
    """With quotes; between tabs only where a cell could not be written without: GLUE's texts have single ones."""
    quoted, plain = _Dialect(mark, True, encoding), _Dialect(mark, False, encoding)
    if mark != "\t" or '"' not in text:
        return quoted
    rows, _ = _sample(text, quoted, whole)
    needed = any(sign in cell for row in rows for cell in row for sign in (mark, "\n", '"'))
    return quoted if needed and _width(text, quoted, whole) else plain


def _width(text: str, dialect: _Dialect, whole: bool) -> int:
    """Cells of each of the first rows; 0 where they differ or cannot be read."""
    rows, readable = _sample(text, dialect, whole)
    widths = {len(row) for row in rows}
    return widths.pop() if readable and len(widths) == 1 else 0


def _sample(text: str, dialect: _Dialect, whole: bool) -> tuple[list[list[str]], bool]:
    """(the whole rows of the beginning, whether none breaks the quoting rules)."""
    rows: list[list[str]] = []
    try:
        rows.extend(row for row in dialect.cells(io.StringIO(text, newline="")) if row)
    except csv.Error:
        return rows, not whole and len(rows) > 1  # else the last row may only be cut
    return (rows if whole or len(rows) < 2 else rows[:-1]), True


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns: short, all different, no number, and none comes again below."""
    first = [cell.strip() for cell in rows[0]]
    if len(set(first)) < len(first) or not all(first) or any(not math.isnan(number_of(cell)) for cell in first):
        return False
    if any(len(cell) > LONGEST_NAME for cell in first):
        return False
    below = rows[1:]
    return not any(cell == row[place].strip() for row in below for place, cell in enumerate(first) if place < len(row))


def _names(first: Sequence[str], path: Path) -> tuple[str, ...]:
    names = tuple(cell.strip() for cell in first)
    twice = next((name for number, name in enumerate(names) if name in names[:number]), None)
    if twice is not None:
        raise UserError(f"{path}:1: two columns are called {twice!r}", "give each a name of its own")
    return names


# ---- reading ----


def _rows(path: Path, dialect: _Dialect, columns: tuple[str, ...], header: bool) -> Iterator[Row]:
    with open_text(path) as file:
        lines = _lines(file, dialect.encoding, path)
        made = dialect.cells(lines)
        last = 0  # the line on which the row before ended
        try:
            for cells in made:
                line, last = last + 1, made.line_num
                if not cells or header:
                    header = header and not cells
                    continue
                if len(cells) != len(columns):
                    raise UserError(f"{path}:{line}: has {len(cells)} cells, not {len(columns)}", MEND)
                yield Row(f"{path}:{line}", dict(zip(columns, cells, strict=True)))
        except csv.Error as error:
            raise UserError(f"{path}:{last + 1}: {FAULTS.get(str(error), str(error))}", MEND) from None


def _lines(file: IO[bytes], encoding: str, path: Path) -> Iterator[str]:
    """The file's lines with their ends. Raises UserError naming the line with bytes that are no text."""
    text = io.TextIOWrapper(file, encoding=encoding, newline="")
    number = 0
    while True:
        try:
            with reading(path, what=FAILED):
                try:
                    line = text.readline()
                except UnicodeError as error:
                    raise UserError(
                        f"{path}: is not {encoding} after line {number}: {error}",
                        "save it as UTF-8, or name its encoding with --set table.encoding=NAME",
                    ) from None
        finally:
            number += 1
        if not line:
            return
        yield line


# ---- writing ----


def _write(
    dialect: _Dialect, columns: tuple[str, ...], header: bool, path: Path, rows: Iterable[Mapping[str, Any]]
) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        if header:
            file.write(dialect.spelled(columns) + "\n")
        for cells in rows:
            file.write(dialect.spelled([str(cells[name]) for name in columns]) + "\n")
