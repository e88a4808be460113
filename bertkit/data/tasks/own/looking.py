"""A look at a user's table before anything is trained on it: columns, lengths, labels, duplicates, overlap.

Legend: N rows.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bertkit.data.tables.opening import open_table
from bertkit.data.tables.table import DataTable, Row, is_missing, number_of
from bertkit.data.tasks.own.base import OwnData
from bertkit.data.tasks.own.columns import TextColumns, choose_columns, columns_in, texts_of
from bertkit.data.tasks.own.labels import CHOICE, TAGGING, LabelFacts, label_text, one_or_zero, parted, survey_labels
from bertkit.errors import UserError
from bertkit.model.long_texts import shortened
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary

PERCENTILES = (50, 90, 99, 100)
LONGEST = 512  # tokens, as most BERTs have positions for
PIECES = 1.4  # tokens of a word of English, about, where no vocabulary is named
GRAIN = 16  # a proposed length is a multiple of it
AT_ONCE = 4096  # texts


@dataclass(frozen=True)
class Look:
    """What a table holds."""

    path: Path
    form: str
    rows: int
    columns: Mapping[str, str]  # name -> what it holds
    chosen: TextColumns
    facts: LabelFacts
    guesses: tuple[str, ...]
    labels: Mapping[str, int]  # rows of each; of a target its least, mean and largest value are in `target`
    target: tuple[float, float, float] | None
    lengths: Mapping[str, int]  # percentiles, in `unit`
    unit: str  # "tokens", [CLS] and [SEP] among them, or "words"
    seq_length: int  # proposed
    cut: float  # share of the rows that it would cut
    empty: int  # rows with an empty text or label
    duplicates: int  # rows whose text another row has, too
    contradicting: int  # among those: with another label
    overlap: int | None  # rows of the dev file whose text is in this one; None: no dev file


def look(
    path: Path,
    said: OwnData,
    dev: Path | None = None,
    vocabulary: Vocabulary | None = None,
    tell: Callable[[int], object] = lambda rows: None,
) -> Look:
    """Read the whole table. Raises UserError as a training on it would."""
    if said.kind in (TAGGING, CHOICE):
        what = "tags of tokens" if said.kind == TAGGING else "choices"
        raise UserError(f"a look is for rows with texts and labels, not for {what}", f"train on it: -t {said.kind}")
    table = open_table(path, said.options)
    chosen = choose_columns(table, said.text, said.pair, said.label)
    facts = survey_labels(table, chosen.columns, said.kind, said.separator, skip_empty=True)
    seen, lengths = _read(table, chosen.columns, facts, vocabulary, tell)
    proposed = propose(lengths, vocabulary is not None)
    return Look(
        path=path,
        form=table.form,
        rows=seen.rows,
        columns=_kinds(table),
        chosen=chosen.columns,
        facts=facts,
        guesses=(*table.guesses, *chosen.guesses, *facts.guesses),
        labels={label: seen.labels[label] for label in facts.labels} if facts.kind != "regression" else {},
        target=seen.target.as_tuple() if seen.target.count else None,
        lengths={f"p{share}": int(np.percentile(lengths, share, method="higher")) for share in PERCENTILES}
        if len(lengths)
        else {},
        unit="tokens" if vocabulary else "words",
        seq_length=proposed,
        cut=float((lengths * (1 if vocabulary else PIECES) > proposed).mean()) if len(lengths) else 0.0,
        empty=seen.empty,
        duplicates=seen.duplicates,
        contradicting=seen.contradicting,
        overlap=_overlap(dev, said, chosen.columns, seen.texts) if dev else None,
    )


def _read(
    table: DataTable,
    columns: TextColumns,
    facts: LabelFacts,
    vocabulary: Vocabulary | None,
    tell: Callable[[int], object],
) -> tuple[_Seen, np.ndarray]:
    """(what the rows have in common, (N,) lengths of those that have texts and labels)."""
    seen = _Seen()
    lengths: list[np.ndarray] = []
    waiting: list[tuple[str, ...]] = []
    for row in table.rows():
        seen.rows += 1
        texts = texts_of(row, columns)
        cells = [row.cells.get(name) for name in columns.labels]
        if texts is None or any(is_missing(cell) for cell in cells):
            seen.empty += 1
            continue
        if facts.kind == "regression" and len(cells) == 1:
            seen.target.add(number_of(cells[0]))
        seen.add(texts, _labels(table, row, facts, columns.labels))
        waiting.append(texts)
        if len(waiting) == AT_ONCE:
            lengths.append(measure(waiting, vocabulary))
            waiting.clear()
            tell(seen.rows)
    return seen, np.concatenate([*lengths, measure(waiting, vocabulary)])


class _Target:
    """Least, mean and largest of the numbers so far."""

    def __init__(self) -> None:
        self.count, self.sum, self.least, self.most = 0, 0.0, math.inf, -math.inf

    def add(self, value: float) -> None:
        self.count, self.sum = self.count + 1, self.sum + value
        self.least, self.most = min(self.least, value), max(self.most, value)

    def as_tuple(self) -> tuple[float, float, float]:
        return self.least, self.sum / self.count, self.most


class _Seen:
    """What the rows have in common; texts are kept as hashes, 16 bytes each."""

    def __init__(self) -> None:
        self.rows = self.empty = self.duplicates = self.contradicting = 0
        self.labels: Counter[str] = Counter()  # of classes
        self.target = _Target()
        self.texts: dict[bytes, int] = {}

    def add(self, texts: Sequence[str], labels: Sequence[str]) -> None:
        self.labels.update(labels)
        key, label = key_of(texts), hash(tuple(labels))
        if key in self.texts:
            self.duplicates += 1
            self.contradicting += self.texts[key] != label
        else:
            self.texts[key] = label


def key_of(texts: Sequence[str]) -> bytes:
    """The same for texts that differ in case and space alone."""
    plain = "\0".join(" ".join(text.lower().split()) for text in texts)
    return hashlib.blake2b(plain.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def measure(texts: Sequence[tuple[str, ...]], vocabulary: Vocabulary | None) -> np.ndarray:
    """(N,) tokens of each row, those that are cut too; words where there is no vocabulary."""
    if vocabulary is None or not texts:
        return np.array([sum(len(text.split()) for text in each) for each in texts], np.int64)
    made = tokenizer(vocabulary)
    made.no_truncation()
    many = LONGEST * 16
    first, second = shortened(made, [each[0] for each in texts], _seconds(texts), many)
    inputs: Any = list(first) if second is None else list(zip(first, second, strict=True))
    return np.array([len(encoding.ids) for encoding in made.encode_batch(inputs)], np.int64)


def _seconds(texts: Sequence[tuple[str, ...]]) -> list[str] | None:
    return [each[1] for each in texts] if len(texts[0]) > 1 else None


def propose(lengths: np.ndarray, tokens: bool) -> int:
    """A maximum sequence length that cuts at most one row of a hundred, if positions allow."""
    if not len(lengths):
        return 128
    wanted = float(np.percentile(lengths, 99)) * (1 if tokens else PIECES) + (0 if tokens else 2)
    return int(min(LONGEST, max(GRAIN, -(-int(np.ceil(wanted)) // GRAIN) * GRAIN)))


def _labels(table: DataTable, row: Row, facts: LabelFacts, names: Sequence[str]) -> list[str]:
    """The row's classes; none where it has numbers."""
    cells = [row.cells.get(name) for name in names]
    if facts.kind == "regression":
        return []
    if len(names) > 1:
        return [name for name, cell in zip(names, cells, strict=True) if one_or_zero(cell)]
    values: Iterable[Any] = cells[0] if isinstance(cells[0], list) else cells
    return [label for value in values for label in parted(label_text(value, table, names[0], row), facts.separator)]


def _kinds(table: DataTable) -> dict[str, str]:
    """What the first rows hold in each column."""
    first = [row.cells for _, row in zip(range(AT_ONCE), table.rows(), strict=False)]
    return {name: _kind([cells.get(name) for cells in first]) for name in table.columns}


def _kind(cells: Sequence[Any]) -> str:
    there = [cell for cell in cells if not is_missing(cell)]
    different = len({str(cell) for cell in there})
    if not there:
        return "empty"
    if any(isinstance(cell, list | dict) for cell in there):
        return "lists or objects"
    numbers = [number_of(cell) for cell in there]
    if any(np.isnan(value) for value in numbers):
        length = sum(len(str(cell)) for cell in there) / len(there)
        return f"texts of {length:.0f} characters on average, {different:,} different"
    whole = "whole numbers" if all(value == int(value) for value in numbers if np.isfinite(value)) else "numbers"
    return f"{whole} from {min(numbers):g} to {max(numbers):g}, {different:,} different"


def _overlap(dev: Path, said: OwnData, columns: TextColumns, seen: Mapping[bytes, int]) -> int:
    table = open_table(dev, said.options)
    wanted = columns_in(table, columns, labelled=False)
    found = (texts_of(row, wanted) for row in table.rows())
    return sum(texts is not None and key_of(texts) in seen for texts in found)
