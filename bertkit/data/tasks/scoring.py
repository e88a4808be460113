"""Scoring a file of predictions, whoever made it, against a file with the right answers."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.tasks import Task, find_task
from bertkit.data.tasks.labels import class_named
from bertkit.data.tasks.squad.metrics import THRESHOLD, score_squad
from bertkit.data.tasks.squad.reader import read_squad
from bertkit.data.tasks.squad.task import SquadFormat
from bertkit.data.tasks.tabular import TableFormat, class_or_score, read_rows
from bertkit.data.tasks.task import Metrics
from bertkit.errors import UserError
from bertkit.files.inputs import DATA_BYTES, check_file, exists, json_fault, kind, read_whole_text

NOT_FINITE = ("nan", "inf", "infinity")  # as Python, NumPy and C write them


@dataclass(frozen=True)
class Score:
    """What a file of predictions is worth."""

    task: str
    metrics: Metrics
    examples: int
    missing: tuple[str, ...] = ()  # ids of examples without a prediction: they count 0
    unknown: tuple[str, ...] = ()  # ids of predictions without an example: they count nothing
    note: str = ""  # how the predictions were understood, where that is not plain


def score_file(
    predictions: Path,
    task: str,
    gold: Path,
    null_odds: Path | None = None,
    threshold: float | None = None,
    strict: bool = False,
) -> Score:
    """Score `predictions` for `task` ("squad", "squad2" or any task with labels) against the file `gold`.

    `null_odds` and `threshold` are squad2's. `strict`: ids that are missing or unknown are an error.
    Raises UserError where a file is bad or the two do not belong together.
    """
    found = find_task(task)
    own = found.format
    version2 = isinstance(own, SquadFormat) and own.version2
    if not version2 and (null_odds is not None or threshold is not None):
        raise UserError(f"--null-odds and --threshold are squad2's, not {found.name}'s", "drop them")
    _check_threshold(threshold, null_odds)
    for path in (predictions, gold, *([null_odds] if null_odds else [])):
        if not exists(path):
            raise UserError(f"{path}: there is no such file", "check the path")
        check_file(path, most=DATA_BYTES)
    if isinstance(own, TableFormat):
        return _score_table(found, own, predictions, gold)
    if not isinstance(own, SquadFormat):
        raise UserError(
            f"predictions of {found.name} are scored with their run alone", f"bertkit evaluate RUN -t {found.name}"
        )
    score = _score_squad(found.name, version2, predictions, gold, null_odds, threshold)
    cure = "correct the file, or leave --strict away to have them counted"
    if strict and score.missing:
        raise UserError(f"{predictions}: lacks {_some(score.missing)}", cure)
    if strict and score.unknown:
        raise UserError(f"{predictions}: answers what {gold} does not ask: {_some(score.unknown)}", cure)
    return score


def _check_threshold(threshold: float | None, null_odds: Path | None) -> None:
    if threshold is not None and not math.isfinite(threshold):
        raise UserError(f"--threshold is {threshold}", "give a finite number")
    if threshold is not None and null_odds is None:
        raise UserError("--threshold needs no-answer odds", "give them with --null-odds FILE")


def _some(ids: tuple[str, ...]) -> str:
    shown = ", ".join(ascii(name[:60]) for name in ids[:3])
    return f"{len(ids)} {'id' if len(ids) == 1 else 'ids'}: {shown}{', …' if len(ids) > 3 else ''}"


def notes(score: Score) -> list[str]:
    """What a reader of the metrics should know, a line each."""
    found = [score.note] if score.note else []
    if score.missing:
        found.append(f"not answered, counted as 0: {_some(score.missing)}")
    if score.unknown:
        found.append(f"answered but not asked, left out: {_some(score.unknown)}")
    return found


# SQuAD: JSON files


def _score_squad(
    name: str, version2: bool, predictions: Path, gold: Path, null_odds: Path | None, threshold: float | None
) -> Score:
    answers = _read_answers(predictions)
    odds = None if null_odds is None else _read_odds(null_odds)
    paragraphs = list(read_squad(gold))
    asked = [question for paragraph in paragraphs for question in paragraph.questions]
    if not any(question.answers or question.impossible for question in asked):
        raise UserError(f"{gold}: holds no answers to compare with", "give the dev set, not the test set")
    if not any(question.id in answers for question in asked):
        raise UserError(f"{predictions}: answers no question of {gold}", "give the file that they were made from")
    try:
        found = score_squad(paragraphs, answers, odds, version2, THRESHOLD if threshold is None else threshold)
    except UserError as error:
        raise UserError(f"{null_odds or gold}: {error.cause}", error.cure) from None
    return Score(name, found.metrics, found.examples, found.missing, found.unknown)


def _read_answers(path: Path) -> dict[str, str]:
    """A file of texts by question id, as Google's and Hugging Face's programs write it."""
    answers = _read_object(path, "question ids and answers")
    for name, answer in answers.items():
        if not isinstance(answer, str):
            raise UserError(
                f"{path}: the answer to {name[:60]!r} is {kind(answer)}, not a text", 'write {"ID": "answer", …}'
            )
    return answers


def _read_odds(path: Path) -> dict[str, float]:
    odds = _read_object(path, "question ids and numbers")
    for name, value in odds.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UserError(f"{path}: the odds of {name[:60]!r} are {kind(value)}, not a number", "correct the file")
    infinite = [name for name, value in odds.items() if not _is_finite(value)]
    if infinite:
        raise UserError(
            f"{path}: {len(infinite):,} of {len(odds):,} odds are not finite (first: those of {infinite[0][:60]!r})",
            "correct the program that wrote them: odds are finite numbers",
        )
    return {name: float(value) for name, value in odds.items()}


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _read_object(path: Path, what: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise UserError(f"{path}: the id {twice[:60]!r} stands twice", "leave one of the two")
        return found

    try:
        found = json.loads(read_whole_text(path), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise json_fault(path, error) from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: holds {kind(found)}, not an object of {what}", 'write it as {"ID": …, …}')
    if not found:
        raise UserError(f"{path}: holds no {what}", "check the path")
    return found


# Tables: GLUE's submission format


def _score_table(task: Task, table: TableFormat, predictions: Path, gold: Path) -> Score:
    columns = task.splits["dev"][0].columns if "dev" in task.splits else None
    if columns is None:
        raise UserError(f"task {task.name} has no labelled set", "its answers are scored by GLUE's server alone")
    labels = table.gold(task, gold, columns)
    if labels is None:
        raise UserError(f"{gold}: holds no labels to compare with", "give the dev set, not the test set")
    rows = _read_table(predictions, len(labels), gold)
    note = ""
    if not task.labels:
        outputs = np.array([[_number(task, *row, predictions)] for row in rows])
        _check_finite(outputs, predictions)
    else:
        as_numbers = "0" not in task.labels and all(text.isdecimal() for _, text in rows)
        outputs = np.eye(len(task.labels))[[_class(task, as_numbers, *row, predictions) for row in rows]]
        if as_numbers:
            note = "read as class numbers: " + ", ".join(f"{at} is {text}" for at, text in enumerate(task.labels))
    return Score(task.name, table.score(outputs, labels), len(labels), note=note)


def _read_table(path: Path, count: int, gold: Path) -> list[tuple[int, str]]:
    """(line, prediction) of `count` examples, put in order by their index, which counts from 0."""
    lines = read_rows(path)
    header = next(lines)[1]
    lacking = [name for name in ("index", "prediction") if name not in header]
    if lacking:
        raise UserError(
            f"{path}:1: has no column {lacking[0]!r}; its columns are {', '.join(header)[:120]}",
            "the first line must be `index`, a tab, `prediction`, as in GLUE's submission format",
        )
    found: dict[int, tuple[int, str]] = {}
    for line, cells in lines:
        if len(cells) != len(header):
            raise UserError(f"{path}:{line}: has {len(cells)} columns, not {len(header)}", "correct the file")
        text = cells[header.index("index")]
        index = int(text) if text.isascii() and text.isdecimal() and len(text) < 16 else -1
        if index < 0:
            raise UserError(f"{path}:{line}: {text[:60]!r} is no index", "number the examples from 0")
        if index in found:
            raise UserError(
                f"{path}:{line}: index {index} stands already in line {found[index][0]}", "correct the file"
            )
        found[index] = (line, cells[header.index("prediction")])
    if sorted(found) != list(range(count)):
        odd = sorted(set(range(count)) ^ set(found))[0]
        raise UserError(
            f"{path}: has {len(found)} predictions for the {count} examples of {gold}; "
            f"the first that does not fit is index {odd}",
            "predict that very file; indices count its examples from 0",
        )
    return [found[index] for index in range(count)]


def _class(task: Task, as_number: bool, line: int, text: str, path: Path) -> int:
    names = tuple(map(str, range(len(task.labels)))) if as_number else task.labels
    number = names.index(text) if text in names else None if as_number else class_named(text, task)
    if number is None:
        raise UserError(f"{path}:{line}: {text[:60]!r} is no label", f"it must be one of {', '.join(names)}")
    return number


def _number(task: Task, line: int, text: str, path: Path) -> float:
    try:
        return float(text) if text.strip().lower().lstrip("+-") in NOT_FINITE else class_or_score(task, text)
    except ValueError:
        raise UserError(f"{path}:{line}: {text[:60]!r} is no score", "it must be a number") from None


def _check_finite(scores: np.ndarray, path: Path) -> None:
    bad = np.flatnonzero(~np.isfinite(scores).all(axis=1))
    if len(bad):
        raise UserError(
            f"{path}: {len(bad):,} of {len(scores):,} scores are not finite (first: that of index {bad[0]})",
            "correct the program that wrote them: a score is a finite number",
        )
