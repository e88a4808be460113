"""A piece of the corpus -> blocks of tokens -> sequences, each with a random place among the shards.

Legend: N sequences of a block.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bertkit.data.pretraining.formats.rows import Rows, join, offsets, smallest, take
from bertkit.data.pretraining.masking import MaskingRule, MaskingVocabulary, keys_of, mask
from bertkit.data.pretraining.prepare.fast_wordpiece import WordCache
from bertkit.data.pretraining.prepare.sentence_pairs import Block, PairShape, sequences
from bertkit.data.pretraining.prepare.sources import PIECE, CorpusFile, Piece
from bertkit.data.pretraining.prepare.texts import Notes, documents

AT_ONCE = 4096  # sequences masked together; any number gives the same masks
LENT = 3  # documents of the block before that a block with a single document draws from


@dataclass
class Counts:
    """What went through a piece."""

    documents: int = 0
    sentences: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Making:
    """How a block becomes sequences."""

    shape: PairShape
    rule: MaskingRule | None  # None: left to whoever reads them
    duplicates: int
    seed: int


Document = list[bytes]  # the ids of its sentences


def blocks(
    piece: Piece, sources: Sequence[CorpusFile], words: WordCache, room: int, counts: Counts, notes: Notes
) -> Iterator[Block]:
    """The piece's documents in blocks of about PIECE characters, no sentence of over `room` tokens."""
    kept: list[Document] = []
    lent: list[Document] = []
    size = 0
    for document in _encoded(piece, sources, words, room, counts, notes):
        kept.append(document)
        size += sum(map(len, document))
        if size >= PIECE // 2 and len(kept) > 1:  # two bytes a token, of about four characters
            yield _block(kept, lent, words)
            kept, lent, size = [], kept[-LENT:], 0
    if len(kept) == 1 and not lent:
        notes.add("documents without another to draw next sentences from")
    if kept:
        yield _block(kept, lent, words)


def _encoded(
    piece: Piece, sources: Sequence[CorpusFile], words: WordCache, room: int, counts: Counts, notes: Notes
) -> Iterator[Document]:
    width = words.dtype.itemsize
    for part in piece:
        source = sources[part.source]
        for sentences in documents(source.path, source.format, part.start, part.stop, notes):
            encoded = [part for ids in words.encode(sentences) for part in _divided(ids, room * width, notes)]
            if not encoded:
                notes.add("documents without text")
                continue
            counts.documents += 1
            counts.sentences += len(encoded)
            counts.tokens += sum(map(len, encoded)) // width
            yield encoded


def _divided(ids: bytes, most: int, notes: Notes) -> list[bytes]:
    """A sentence's ids in parts that fit into a sequence, so that what is cut off elsewhere stays small."""
    if len(ids) > most:
        notes.add("sentences longer than a sequence divided")
    return [ids[start : start + most] for start in range(0, len(ids), most)]


def _block(kept: list[Document], lent: list[Document], words: WordCache) -> Block:
    """`kept`, and where that is a single document some to draw from, which make no sequences of their own."""
    texts = kept + (lent if len(kept) == 1 else [])
    width = words.dtype.itemsize
    sentences = offsets(np.array([len(ids) // width for document in texts for ids in document]))
    tokens = np.frombuffer(b"".join(ids for document in texts for ids in document), words.dtype)
    starts = array("q", [0])
    for document in texts:
        starts.append(starts[-1] + len(document))
    return Block(tokens, sentences.tolist(), starts.tolist(), own=len(kept))


def make(block: Block, making: Making, pieces: MaskingVocabulary, piece: int, number: int) -> Iterator[Rows]:
    """The sequences of a block, as often as `duplicates` says, each time made and masked anew."""
    cls, sep = pieces.special
    for turn in range(making.duplicates):
        rows = sequences(block, making.shape, cls, sep, f"{making.seed} {piece} {number} {turn}")
        if making.rule is None:
            yield rows
            continue
        keys = keys_of(making.seed, (piece << 16 | number) << 8 | turn, np.arange(len(rows)))
        parts = [np.arange(first, min(first + AT_ONCE, len(rows))) for first in range(0, len(rows), AT_ONCE)]
        if parts:
            yield join([_masked(take(rows, part), keys[part], making.rule, pieces) for part in parts])


def _masked(rows: Rows, keys: np.ndarray, rule: MaskingRule, pieces: MaskingVocabulary) -> Rows:
    masked = mask(rows.input_ids.astype(np.int64), rows.cu_seqlens, keys, rule, pieces)
    cu_masked = np.searchsorted(masked.positions, rows.cu_seqlens)
    within = masked.positions - np.repeat(rows.cu_seqlens[:-1], np.diff(cu_masked))
    return replace(
        rows,
        input_ids=smallest(masked.input_ids),
        positions=within.astype(np.int32),
        masked_labels=smallest(masked.labels),
        cu_masked=cu_masked.astype(np.int64),
    )
