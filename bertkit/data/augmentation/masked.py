"""Masked sequences: a text with some of its words masked, [SEP], and the same text with nothing masked.

So a masked word is proposed for by what it means there, not by what stands around it alone. A text that is too long is
covered by windows that overlap by half; a word is masked in the one where it has most context.

Legend: T tokens of a batch, B sequences, M masked positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from bertkit.data.tasks.squad.windows import max_context, windows
from bertkit.model.vocabulary import Vocabulary

SPECIAL_TOKENS = 3  # [CLS] and two [SEP]
SHORTEST = SPECIAL_TOKENS + 2 * 4  # tokens of a sequence that has room for a word and a little around it
MOST_MASKED = 1024  # positions of a batch: their logits over 30,522 pieces are 125 MB


@dataclass(frozen=True)
class MaskedSequence:
    """A window of a text, and the pieces of the text that are masked in it."""

    text: int  # the text's number
    start: int  # pieces
    end: int
    masked: tuple[int, ...]  # counted in the text, in their order

    @property
    def tokens(self) -> int:
        return 2 * (self.end - self.start) + SPECIAL_TOKENS


@dataclass(frozen=True)
class MaskingWay:
    """How words become masked sequences."""

    seq_length: int  # maximum sequence length in tokens
    at_once: int = 1  # most words that are masked in one sequence

    @property
    def room(self) -> int:
        """Most pieces of a window."""
        return (self.seq_length - SPECIAL_TOKENS) // 2


def masked_sequences(text: int, length: int, pieces: Sequence[int], way: MaskingWay) -> Iterator[MaskedSequence]:
    """The sequences in which the `pieces` of a text of `length` pieces, at least one, are masked, each once.

    Of several in one sequence, neighbours are apart: with G sequences a window's words are dealt to them in turn.
    """
    spans = windows(length, way.room, max(1, way.room // 2))
    places = np.array(pieces, np.int64)
    owners = max_context(spans, length)[places] if len(spans) > 1 else np.zeros(len(places), np.int64)
    changes = np.flatnonzero(np.diff(owners)) + 1
    for first, several in zip([0, *changes.tolist()], np.split(places, changes), strict=True):
        start, end = spans[owners[first]]
        inside = several.tolist()
        groups = -(-len(inside) // way.at_once)
        for group in range(groups):
            yield MaskedSequence(text, start, end, tuple(inside[group::groups]))


def batch_of(
    sequences: Sequence[MaskedSequence], pieces: Sequence[np.ndarray], vocabulary: Vocabulary, segments: int
) -> dict[str, np.ndarray]:
    """A ragged batch for a pre-trained model: input_ids and token_type_ids (T,), cu_seqlens (B + 1,),
    masked_positions (M,) in the order of the sequences and of their masked pieces.

    `pieces`: the ids of each sequence's text; `segments`: how many the model tells apart.
    """
    cls, sep, mask = (vocabulary.special_ids[role] for role in ("[CLS]", "[SEP]", "[MASK]"))
    ids, types, positions, starts = [], [], [], [0]
    for sequence, whole in zip(sequences, pieces, strict=True):
        plain = whole[sequence.start : sequence.end].astype(np.int32)
        places = np.array(sequence.masked, np.int64) - sequence.start
        masked = plain.copy()
        masked[places] = mask
        ids.append(np.concatenate([[cls], masked, [sep], plain, [sep]]))
        types.append(np.repeat([0, min(1, segments - 1)], [len(plain) + 2, len(plain) + 1]))
        positions.append(starts[-1] + 1 + places)
        starts.append(starts[-1] + sequence.tokens)
    return {
        "input_ids": np.concatenate(ids).astype(np.int32),
        "token_type_ids": np.concatenate(types).astype(np.int32),
        "cu_seqlens": np.array(starts, np.int32),
        "example_ids": np.arange(len(sequences), dtype=np.int64),
        "masked_positions": np.concatenate(positions).astype(np.int64),
    }


def batches(sequences: Sequence[MaskedSequence], size: int) -> Iterator[list[int]]:
    """Places of `sequences` in batches of like length, the longest first: of at most `size` sequences, and of
    MOST_MASKED masked positions where one sequence has no more."""
    part: list[int] = []
    masked = 0
    for place in np.argsort([-sequence.tokens for sequence in sequences], kind="stable").tolist():
        more = len(sequences[place].masked)
        if part and (len(part) == size or masked + more > MOST_MASKED):
            yield part
            part, masked = [], 0
        part.append(place)
        masked += more
    if part:
        yield part
