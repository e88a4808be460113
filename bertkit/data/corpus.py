"""How often each word piece of a vocabulary occurs in files of texts.

Legend: V pieces of the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bertkit.data.pretraining.prepare.texts import Notes, documents
from bertkit.data.tables.opening import is_pattern, matching, open_table
from bertkit.errors import UserError
from bertkit.files.inputs import parse_json
from bertkit.files.packed import open_text, read_some, unpacked_suffix
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import Vocabulary, ids_of
from bertkit.model.vocabulary_pruning import matched

if TYPE_CHECKING:
    from tokenizers import Tokenizer

COLUMNAR = (".parquet", ".arrow", ".feather")
LINES_OF_JSON = (".jsonl", ".ndjson")
AT_ONCE = 1 << 10  # texts that are encoded together


@dataclass(frozen=True)
class PieceCounts:
    """What a corpus holds, in pieces."""

    pieces: np.ndarray  # (V,) int64: how often each occurs
    texts: int
    unknown: int  # words that are [UNK]

    @property
    def tokens(self) -> int:
        return int(self.pieces.sum())


def corpus_files(named: Iterable[Path]) -> list[Path]:
    """The files that are named, or matched by a pattern. Raises UserError where there is none."""
    return [file for path in named for file in (matching(path) if is_pattern(path) else [path])]


def texts_of(path: Path) -> Iterator[str]:
    """A file's texts: each text in it of JSON, Parquet and Arrow, of any other file each line.

    A line of CSV or TSV is taken as it stands, so its delimiters and labels count as words too. Raises UserError where
    the file is missing, not UTF-8 or damaged.
    """
    suffix = unpacked_suffix(path)
    if suffix in COLUMNAR:
        for row in open_table(path).rows():
            yield from _strings(list(row.cells.values()))
    elif suffix == ".json":
        with open_text(path) as file:
            raw = b"".join(iter(lambda: read_some(file, path, 1 << 20), b""))
        yield from _strings(parse_json(raw, path, "correct the file, or name it .jsonl where each line is an object"))
    else:
        lines = (line for document in documents(path, "sentences", 0, -1, Notes()) for line in document)
        for number, line in enumerate(lines, 1):
            if suffix in LINES_OF_JSON:
                yield from _strings(parse_json(line, f"{path}: text {number}"))
            else:
                yield line


def count_pieces(
    vocabulary: Vocabulary, files: Sequence[Path], tell: Callable[[int], object] = lambda done: None
) -> PieceCounts:
    """Of the texts in the files. `tell` hears of each file that is read.

    The pieces that a word begins with before it becomes [UNK] count too: without them it would not. Raises UserError
    as `texts_of`, and where there is no text.
    """
    cutter = tokenizer(vocabulary)
    counts = np.zeros(len(vocabulary.pieces), np.int64)
    unknown: Counter[str] = Counter()
    texts = 0
    for file in files:
        for some in _batches(texts_of(file)):
            texts += len(some)
            counts += _count(cutter, some, vocabulary, unknown)
        tell(1)
    if not texts:
        raise UserError(f"{', '.join(map(str, files))}: no text in it", "name files with texts")
    known = ids_of(vocabulary.pieces[: vocabulary.word_pieces])
    for word, times in unknown.items():
        for piece in matched(word, known):
            counts[known[piece]] += times
    return PieceCounts(counts, texts, unknown.total())


def _count(cutter: Tokenizer, texts: list[str], vocabulary: Vocabulary, unknown: Counter[str]) -> np.ndarray:
    """How often each id occurs; words that are [UNK] are added to `unknown` as they are looked up."""
    number = vocabulary.special_ids["[UNK]"]
    ids: list[int] = []
    for text, encoded in zip(texts, cutter.encode_batch(texts, add_special_tokens=False), strict=True):
        ids += encoded.ids
        for found, (start, stop) in zip(encoded.ids, encoded.offsets, strict=True) if number in encoded.ids else ():
            if found == number:
                unknown.update(cutter.normalizer.normalize_str(text[start:stop]).split())
    return np.bincount(np.array(ids, np.int64), minlength=len(vocabulary.pieces))


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    some: list[str] = []
    for text in texts:
        if text.strip():
            some.append(text)
        if len(some) == AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, however deep; keys are none."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list | tuple):
            waiting += one
