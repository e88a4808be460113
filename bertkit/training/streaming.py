"""Answers as they are asked for: to the lines of standard input, or to the rows of a table, in bounded memory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from bertkit.console import Display
from bertkit.data.tables.hub_tables import table_path
from bertkit.data.tables.opening import open_table
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.files.inputs import parse_json
from bertkit.recipes.recipe import Recipe
from bertkit.training.inference import load
from bertkit.training.predictor import AT_ONCE, Example, Predictor
from bertkit.training.preparing import Prediction
from bertkit.training.run_task import read_task

STDIN = "-"


def is_streamed(run: str, source: str, to_folder: bool) -> bool:
    """Whether answers go to standard output: those to standard input, and to a table by a model of such a task."""
    if source == STDIN:
        if to_folder:
            raise UserError("answers to standard input go to standard output, not to a folder", "drop -o")
        return True
    told = read_task(Path(run).expanduser())
    own = told.own.format if told and told.own else None
    return isinstance(own, OwnFormat) and own.answers_rows and not to_folder


def open_predictor(recipe: Recipe, display: Display, force: bool) -> Predictor:
    """The model in the folder `recipe.model.name`. Raises UserError where its answers are no labels or values."""
    predictor = Predictor(load(recipe, World(), display, force), recipe)
    predictor.check_kind()
    return predictor


def stream(predictor: Predictor, source: str) -> Iterator[tuple[tuple[str, ...], Prediction]]:
    """(the example's texts, what the model says of it), in their order."""
    examples = iter(of_lines(sys.stdin) if source == STDIN else _of_table(predictor, table_path(source)))
    first = 0
    while part := list(itertools.islice(examples, AT_ONCE)):
        texts = [predictor.texts(example, first + number) for number, example in enumerate(part)]
        yield from zip(texts, predictor.predict_texts(texts, first), strict=True)
        first += len(part)


def of_lines(lines: Iterable[str]) -> Iterator[Example]:
    """A text a line, two parted by a tab, or a JSON object a line. Empty lines are left out."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text.startswith("{"):
                found = parse_json(text, f"standard input, line {number}", "write a JSON object, or a text")
                yield found
            elif text:
                yield text.split("\t") if "\t" in text else text
    except UnicodeDecodeError as error:
        raise UserError(f"standard input is not UTF-8 after line {number}: {error.reason}", "send UTF-8") from None


def _of_table(predictor: Predictor, path: Path) -> Iterator[Example]:
    own = predictor.task.format
    if not isinstance(own, OwnFormat) or not own.answers_rows:
        raise UserError(f"{path}: {predictor.task.name} has files of a format of its own", "name a folder with -o")
    yield from own.texts_in(open_table(path, own.options))
