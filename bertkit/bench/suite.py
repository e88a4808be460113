"""Suites: the reference systems' grids of models, lengths, batches and precisions, as lists of cells."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from bertkit.data.lengths import find_distribution
from bertkit.engine.interface import PRECISIONS
from bertkit.errors import UserError, nearest, one_line
from bertkit.files.inputs import parse_toml, read_text
from bertkit.files.packaged import packaged_text
from bertkit.records.schema import Status

Kind = Literal["train", "infer"]
DOES_NOT_FIT: Status = "does not fit"
_STRICT = ConfigDict(extra="forbid", populate_by_name=True)
ALL = "all"
Count = Annotated[int, Field(ge=1)]


@checked(frozen=True, config=_STRICT)
class Grid:
    """Every combination of its lists is a cell."""

    source: Annotated[str, Field(alias="from")]
    models: tuple[str, ...]
    lengths: str
    cuts: tuple[Annotated[int, Field(ge=3)], ...]
    batches: tuple[Count, ...]
    precisions: tuple[str, ...]


@checked(frozen=True, config=_STRICT)
class Suite:
    """Grids of one kind of work."""

    title: str
    kind: Kind
    grids: tuple[Grid, ...]


@dataclass(frozen=True)
class Cell:
    """One measurement, made by a process of its own."""

    kind: Kind
    model: str
    precision: str
    lengths: str
    cut: int
    batch: int

    @property
    def name(self) -> str:
        """Of its file, and in the table."""
        model = Path(self.model).name
        return f"{self.kind}-{model}-{self.precision}-{self.lengths}-s{self.cut}-b{self.batch}"

    def words(self) -> list[str]:
        """The command that measures it, without where and how long."""
        lists = ["-m", self.model, "-d", self.precision, "-b", str(self.batch), "--lengths", self.lengths]
        return ["bench", self.kind, *lists, "-s", str(self.cut)]


@dataclass(frozen=True)
class Wanted:
    """What of a suite is asked for; an empty list means all."""

    models: Collection[str] = ()
    precisions: Collection[str] = ()
    batches: Collection[int] = ()


def read_suites(name: str) -> dict[str, Suite]:
    """The packaged suite called `name`, all of them, or those of a file ending in .toml. Raises UserError for none."""
    if name.endswith(".toml"):
        return _read(Path(name).name, read_text(Path(name)))
    packaged = _read("suites.toml", packaged_text("bench", "suites.toml"))
    if name == ALL:
        return packaged
    if name not in packaged:
        raise UserError(f"there is no suite {name!r}", f"{nearest(name, [*packaged, ALL])} Or a file ending in .toml")
    return {name: packaged[name]}


def _read(where: str, text: str) -> dict[str, Suite]:
    tables = parse_toml(text, where, "docs/bench.md shows a suite")
    try:
        found: dict[str, Suite] = TypeAdapter(dict[str, Suite]).validate_python(tables)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = one_line(".".join(str(part) for part in first["loc"]), 120)
        raise UserError(f"{where}: {place}: {first['msg'].lower()}", "docs/bench.md shows a suite") from None
    for suite in found.values():
        for grid in suite.grids:
            find_distribution(grid.lengths)
            for precision in grid.precisions:
                if precision not in PRECISIONS:
                    raise UserError(
                        f"{where}: there is no precision {precision!r}", "choose from " + ", ".join(PRECISIONS)
                    )
    return found


def cells(suites: Mapping[str, Suite], wanted: Wanted, can: Collection[str]) -> tuple[list[Cell], list[str]]:
    """(cells in the order of the grids, none twice; precisions left out since the backend lacks them).

    Models that are asked for and in no grid take the place of the grids' own. Raises UserError where nothing is left.
    """
    found: dict[Cell, None] = {}
    lacking: dict[str, None] = {}
    for suite in suites.values():
        for grid in suite.grids:
            models = [model for model in grid.models if model in wanted.models] if wanted.models else grid.models
            models = (*models, *(model for model in wanted.models if not _known(model, suites)))
            for model, cut, batch, precision in itertools.product(models, grid.cuts, grid.batches, grid.precisions):
                if wanted.precisions and precision not in wanted.precisions:
                    continue
                if wanted.batches and batch not in wanted.batches:
                    continue
                if precision not in can:
                    lacking[precision] = None
                    continue
                found[Cell(suite.kind, model, precision, grid.lengths, cut, batch)] = None
    if not found:
        lacks = f"; the backend lacks {', '.join(lacking)}" if lacking else ""
        raise UserError(f"no cell of the suite is asked for{lacks}", "ask for more with -m, -d and -b, or leave them")
    return list(found), list(lacking)


def _known(model: str, suites: Mapping[str, Suite]) -> bool:
    return any(model in grid.models for suite in suites.values() for grid in suite.grids)
