"""Tasks that label the tokens of sentences: named entities, parts of speech.

A word's label stands at its first piece; its other pieces, and the special tokens, have none.

Legend: N sentences, T tokens of them, W words of them, C tags.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.encoding import encode_words
from bertkit.data.features import Features
from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, Row, shown
from bertkit.data.tasks.counts import counted, scores_of_classes
from bertkit.data.tasks.metrics import Metrics
from bertkit.data.tasks.own.base import OwnFormat
from bertkit.data.tasks.own.columns import TextColumns
from bertkit.data.tasks.own.held_out import mask
from bertkit.data.tasks.own.tags import count_entities, scheme_of, whole_set
from bertkit.data.tasks.task import Answered, AnswerRules, Part, Shape, Split, SplitName, Task, Tell
from bertkit.engine.interface import NO_LABEL
from bertkit.errors import UserError, nearest
from bertkit.files.disk import write_text
from bertkit.model.vocabulary import Vocabulary

TOKENS, TAGS = ("tokens", "words"), ("tags", "ner_tags", "labels", "ner", "pos_tags", "label")  # usual columns
Sentence = tuple[list[str], list[int] | None]  # words, and the numbers of their tags where the file has them
CUT = "O"  # of a word behind the maximum length: what it is scored as


def tag_metrics(scheme: str) -> tuple[str, ...]:
    """Those that can pick the best checkpoint, the usual one first."""
    return ("entity_f1", "entity_macro_f1", "token_accuracy") if scheme else ("token_accuracy", "token_macro_f1")


def survey_tags(table: DataTable, text: str, label: str) -> tuple[TextColumns, tuple[str, ...], str]:
    """(the columns, all tags in the order of the outputs, their scheme). Raises UserError where there are none."""
    tokens, tags = _column(table, text, TOKENS, "tokens", "--text"), _column(table, label, TAGS, "tags", "--label")
    columns = TextColumns(text=tokens, pair=None, labels=(tags,))
    found = {tag for row in table.rows() for tag in tags_of(table, row, columns)}
    if len(found) < 2:
        raise UserError(f"{table.path}: holds {len(found)} tag only", "there is nothing to tell apart")
    scheme = scheme_of(found)
    return columns, whole_set(found, scheme), scheme


def _column(table: DataTable, name: str, usual: Sequence[str], what: str, option: str) -> str:
    if name:
        return table.column(name, what)
    known = next((column for column in usual if column in table.columns), None)
    if known is None:
        raise UserError(
            f"{table.path}: which column holds the {what}? Its columns: {', '.join(table.columns[:20])}",
            f"name it with {option}",
        )
    return known


def words_of(row: Row, columns: TextColumns) -> list[str]:
    """The row's tokens. Raises UserError where they are no list of texts."""
    found = row.cells.get(columns.text)
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise UserError(f"{row.place}: column {columns.text} holds {shown(found)}, not a list of tokens", "correct it")
    return found


def tags_of(table: DataTable, row: Row, columns: TextColumns) -> list[str]:
    """The row's tags, one for each token. Raises UserError where their numbers differ."""
    words, found = words_of(row, columns), row.cells.get(columns.labels[0])
    if not isinstance(found, list) or len(found) != len(words):
        count = f"{len(found)} tags" if isinstance(found, list) else shown(found)
        raise UserError(f"{row.place}: has {len(words)} tokens, but {count}", "give each token one tag")
    names = table.names.get(columns.labels[0])
    return [_tag(each, names, row) for each in found]


def _tag(value: Any, names: Sequence[str] | None, row: Row) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if names and 0 <= value < len(names) else str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{row.place}: a tag is {shown(value)}", "a tag is a text, as O or B-PER")
    return value.strip()


@dataclass(frozen=True, kw_only=True)
class TokenFormat(OwnFormat):
    """A row is a sentence: its tokens, and a tag for each."""

    scheme: str  # IOB, IOBES, BILOU, or "" for plain tags

    def features(
        self, task: Task, path: Path, split: SplitName, one: Split, vocabulary: Vocabulary, shape: Shape, tell: Tell
    ) -> Features:
        sentences, empty = self.sentences(task, path, split, shape.rows)
        if not sentences:
            raise UserError(f"{path}: holds no sentences", "name a file with tokens")
        words, tags = [each[0] for each in sentences], [each[1] for each in sentences]
        total = len(words)
        features, first = encode_words(vocabulary, words, shape.seq_length, lambda done: tell(done, total))
        notes = {
            "skipped": np.array([empty]),
            "words": np.concatenate([[0], np.cumsum([len(each) for each in words])]),  # (N+1,)
            "first": first,  # (W,) the token of each word's first piece; -1: it was cut off
        }
        labels: dict[str, np.ndarray] = {}
        if all(each is not None for each in tags):
            gold = np.array([number for each in tags for number in each or ()], np.int64)
            token_labels = np.full(len(features.input_ids), NO_LABEL, np.int64)
            token_labels[first[first >= 0]] = gold[first >= 0]
            labels["token_labels"], notes["gold"] = token_labels, gold
        return Features(features.input_ids, features.token_type_ids, features.cu_seqlens, labels, notes)

    def sentences(self, task: Task, path: Path, split: SplitName, rows: int = 0) -> tuple[list[Sentence], int]:
        """(the sentences of the split, how many rows of the file have no tokens and are left out)."""
        table = open_table(path, self.options)
        labelled = split != "test" or self.columns.labels[0] in table.columns
        found: list[Sentence] = []
        empty = 0
        for row in table.rows():
            words = words_of(row, self.columns)
            tags = [_number(task, tag, row) for tag in tags_of(table, row, self.columns)] if labelled else None
            empty += not words
            found += [(words, tags)] if words else []
        if self.held_out and split != "test":
            aside = mask(self.held_out, [0] * len(found), None, path)
            found = [each for each, held in zip(found, aside, strict=True) if held == (split == "dev")]
        return found[: rows or None], empty

    def faults(self, features: Features) -> tuple[str, ...]:
        cut, empty = int((features.notes["first"] < 0).sum()), int(features.notes["skipped"][0])
        said = [f"{empty:,} rows without tokens are left out"] if empty else []
        said += [f"{cut:,} words stand behind the maximum length: they are not seen, and count as {CUT}"] if cut else []
        return tuple(said)

    def answer(self, task: Task, part: Part, outputs: Mapping[str, np.ndarray], rules: AnswerRules) -> Answered:
        notes, found = part.features.notes, outputs["logits"].argmax(-1)  # (T,)
        first = notes["first"]
        outside = task.labels.index(CUT) if CUT in task.labels else 0
        said = np.where(first >= 0, found[np.maximum(first, 0)], outside)  # (W,)
        metrics = {} if "gold" not in notes else self._score(task, notes["gold"], said, notes["words"])
        return Answered(metrics, functools.partial(self._write, task, part, said))

    def _score(self, task: Task, gold: np.ndarray, said: np.ndarray, words: np.ndarray) -> Metrics:
        accuracy = float((gold == said).mean())
        if not self.scheme:
            macro = float(scores_of_classes(counted(gold, said))["macro_f1"][0])
            return {"token_accuracy": accuracy, "token_macro_f1": macro}
        counts = count_entities(*(_by_sentence(task, numbers, words) for numbers in (gold, said)))
        precision, recall, f1 = counts.scores()
        return {
            "entity_f1": f1,
            "entity_precision": precision,
            "entity_recall": recall,
            "entity_macro_f1": counts.macro_f1,
            "token_accuracy": accuracy,
        }

    def _write(self, task: Task, part: Part, said: np.ndarray, folder: Path, infix: str) -> Path:
        """CoNLL's columns: token and tag."""
        path = folder / f"{task.name}{infix}.conll"
        split: SplitName = "dev" if part.held_out else "test"
        tags = _by_sentence(task, said, part.features.notes["words"])
        sentences = (words for words, _ in self.sentences(task, part.file, split, part.rows)[0])
        blocks = (
            "\n".join(f"{word}\t{tag}" for word, tag in zip(words, each, strict=True))
            for words, each in zip(sentences, tags, strict=True)
        )
        write_text(path, "\n\n".join(blocks) + "\n")
        return path


def _number(task: Task, tag: str, row: Row) -> int:
    try:
        return task.labels.index(tag)
    except ValueError:
        cure = nearest(tag, task.labels)
        raise UserError(f"{row.place}: the tag {shown(tag)} does not occur in the training file", cure) from None


def _by_sentence(task: Task, numbers: np.ndarray, words: np.ndarray) -> list[list[str]]:
    """(W,) tags of all words -> the names of each sentence's."""
    names = [task.labels[number] for number in numbers]
    return [names[start:end] for start, end in itertools.pairwise(words)]
