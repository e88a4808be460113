"""Files of tasks whose texts are varied: GLUE's tables and those like them, and SQuAD's JSON.

A table's other columns, its header and its order are copied. Of SQuAD the contexts are varied, with every answer's
words left as they are and `answer_start` moved with them; a copy's questions have ids of their own.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkit.data.augmentation.texts import AugmentedFile, Group, Protected, VariedExample
from bertkit.data.augmentation.variants import VariedText
from bertkit.data.tasks.squad.reader import Paragraph, Question, read_squad
from bertkit.data.tasks.squad.task import SquadFormat
from bertkit.data.tasks.tabular import RAW, TableFormat, belongs_to, read_rows, text_places
from bertkit.data.tasks.task import Columns, Task, split_files
from bertkit.errors import UserError
from bertkit.files.disk import to_json

# Copies of an example by the task's name, as Jiao et al. 2019 and the code of others have them
COPIES = {
    "cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "stsb": 30, "qqp": 10, "qnli": 20, "rte": 30, "squad": 15,
    "squad2": 15,
}  # fmt: skip
USUAL_COPIES = 20
COPY = re.compile(r"(.*)-aug\d+", re.DOTALL)  # the id of a copy's question


def open_task_file(task: Task, path: Path) -> AugmentedFile:
    """A training file of `task`. Raises UserError where it is none, and for a task whose files are not varied here."""
    if isinstance(task.format, SquadFormat):
        return _squad_file(path, task.format.version2)
    if isinstance(task.format, TableFormat):
        return _tab_file(task, task.format, path)
    raise UserError(f"files of task {task.name} are not augmented", "take a task of texts in a table, or SQuAD")


# ---- tab-separated tables ----


@dataclass(frozen=True)
class _Cells:
    """Where a table's texts are."""

    header: bool
    texts: tuple[int, ...]  # columns
    width: int
    broken: int  # rows of the published file that lack columns


def _tab_file(task: Task, own: TableFormat, path: Path) -> AugmentedFile:
    columns = split_files(task, "train")[0].columns or Columns(0)
    first, second, _, width = text_places(path, columns, read_rows(path), False)
    texts = (first,) if second is None else (first, second)
    cells = _Cells(columns.header, texts, width, own.broken_rows)
    raw = bool(task.raw_files) and path.name == RAW["train"]
    keep = belongs_to(path.parent, "train") if raw else lambda found: True
    named = tuple(str(name) for name in (columns.first, columns.second) if name is not None)
    notes = ("rows of the dev set (dev_ids.tsv) are left out",) if raw else ()

    def write(place: Path, groups: Iterable[Group]) -> None:
        header = [next(read_rows(path))[1]] if cells.header else []
        with place.open("w", encoding="utf-8", newline="") as file:
            file.writelines("\t".join(line) + "\n" for line in itertools.chain(header, _lines(groups, texts)))

    form = f"a table of {task.name}"
    return AugmentedFile(path, form, lambda: _examples(path, cells, keep), write, named, notes)


def _examples(path: Path, cells: _Cells, keep: Callable[[list[str]], bool]) -> Iterator[VariedExample]:
    skipped = 0
    for number, found in read_rows(path):
        if number == 1 and cells.header:
            continue
        if len(found) != cells.width:
            if skipped < cells.broken and len(found) < cells.width:
                skipped += 1
                continue
            raise UserError(
                f"{path}:{number}: has {len(found)} columns, not {cells.width}", "mend or fetch the file again"
            )
        if keep(found):
            yield VariedExample(tuple(found[place] for place in cells.texts), found)


def _lines(groups: Iterable[Group], texts: Sequence[int]) -> Iterator[list[str]]:
    for example, copies in groups:
        yield example.whole
        for copy in copies:
            made = list(example.whole)
            for place, varied in zip(texts, copy, strict=True):
                made[place] = varied.text
            yield made


# ---- SQuAD ----


def _squad_file(path: Path, version2: bool) -> AugmentedFile:
    def write(place: Path, groups: Iterable[Group]) -> None:
        version = "v2.0" if version2 else "1.1"
        with place.open("w", encoding="utf-8") as file:
            file.write(f'{{"version": "{version}", "data": [')
            for number, article in enumerate(_articles(groups, version2)):
                file.write((", " if number else "") + to_json(article))
            file.write("]}\n")

    form = "SQuAD v2.0" if version2 else "SQuAD v1.1"
    return AugmentedFile(path, form, lambda: _contexts(path), write, ("context",), suffixes=(".json",))


def _contexts(path: Path) -> Iterator[VariedExample]:
    ids: set[str] = set()
    for paragraph in read_squad(path):
        ids.update(question.id for question in paragraph.questions)
        yield VariedExample((paragraph.context,), paragraph, _answers(paragraph))
    copied = next((name for name in ids if (found := COPY.fullmatch(name)) and found[1] in ids), None)
    if copied is not None:
        raise UserError(f"{path}: is augmented already: it has the id {copied!r}", "give the file that it was made of")


def _answers(paragraph: Paragraph) -> Protected:
    answers = (answer for question in paragraph.questions for answer in question.answers)
    return tuple(sorted({(answer.start, answer.start + len(answer.text)) for answer in answers}))


def _articles(groups: Iterable[Group], version2: bool) -> Iterator[dict[str, Any]]:
    """Neighbouring paragraphs of one title together, each followed by its copies."""
    title, waiting = "", []  # type: str, list[dict[str, Any]]
    for example, copies in groups:
        paragraph: Paragraph = example.whole
        if waiting and paragraph.title != title:
            yield {"title": title, "paragraphs": waiting}
            waiting = []
        title = paragraph.title
        waiting.append(_spelled(paragraph, VariedText(paragraph.context, ()), "", version2))
        waiting += [
            _spelled(paragraph, varied, f"-aug{number}", version2) for number, (varied,) in enumerate(copies, 1)
        ]
    if waiting:
        yield {"title": title, "paragraphs": waiting}


def _spelled(paragraph: Paragraph, varied: VariedText, mark: str, version2: bool) -> dict[str, Any]:
    return {"context": varied.text, "qas": [_question(one, varied, mark, version2) for one in paragraph.questions]}


def _question(question: Question, varied: VariedText, mark: str, version2: bool) -> dict[str, Any]:
    answers = [{"text": answer.text, "answer_start": varied.moved(answer.start)} for answer in question.answers]
    made: dict[str, Any] = {"id": question.id + mark, "question": question.text, "answers": answers}
    return made | ({"is_impossible": question.impossible} if version2 or question.impossible else {})
