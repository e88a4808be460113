"""Texts that are made of several columns of a row: "{title}: {body}" in place of a column's name.

A column that is called so itself comes first. `{{` and `}}` are braces of the text, as in Python's format strings.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Mapping
from typing import Any

from bertkit.data.tables.table import DataTable, is_missing
from bertkit.errors import UserError


@functools.lru_cache(maxsize=64)
def _parts(name: str) -> tuple[tuple[str, str | None], ...]:
    """(text, the column after it) of each stretch. Raises UserError for braces that do not close, or hold no name."""
    try:
        found = tuple(string.Formatter().parse(name))
    except ValueError as error:
        raise UserError(f"{name!r} is no template: {error}", 'write one as "{title}: {body}"') from None
    for _, column, form, conversion in found:
        if column == "" or form or conversion:
            raise UserError(f"{name!r} is no template: braces hold a column's name alone", 'as in "{title}: {body}"')
    return tuple((text, column) for text, column, _, _ in found)


def columns_of(name: str) -> tuple[str, ...]:
    """The columns that a template names; (name,) of what is none."""
    if "{" not in name:
        return (name,)
    return tuple(column for _, column in _parts(name) if column is not None) or (name,)


def text_column(table: DataTable, name: str, what: str) -> str:
    """The column, or the template with the columns as the table spells them. Raises UserError for one not there."""
    if name in table.columns or columns_of(name) == (name,):
        return table.column(name, what)
    spelled = [
        text.replace("{", "{{").replace("}", "}}") + ("" if column is None else f"{{{table.column(column, what)}}}")
        for text, column in _parts(name)
    ]
    return "".join(spelled)


def is_in(name: str, cells: Mapping[str, Any]) -> bool:
    """Whether a row has the column, or all that a template names."""
    return name in cells or all(column in cells for column in columns_of(name))


def text_cell(cells: Mapping[str, Any], name: str) -> Any:
    """What a row has in the column, or the template with the row's cells in it.

    None where all of them are missing; a single missing one is an empty text. A list or an object comes back itself.
    """
    columns = columns_of(name)
    if name in cells or columns == (name,):
        return cells.get(name)
    found = {column: cells.get(column) for column in columns}
    odd = next((cell for cell in found.values() if isinstance(cell, list | dict)), None)
    if odd is not None or all(is_missing(cell) for cell in found.values()):
        return odd
    texts = {column: "" if is_missing(cell) else str(cell) for column, cell in found.items()}
    return "".join(text + ("" if column is None else texts[column]) for text, column in _parts(name))
