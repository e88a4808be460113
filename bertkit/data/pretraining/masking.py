"""Which word pieces are hidden, and by what: a pure function of a key for each sequence, whatever the batch.

The rule is google-research/bert's: 15 % of a sequence's tokens, special ones in the count but never chosen; of the
chosen 80 % become [MASK], 10 % a random piece, 10 % stay. Random numbers are hashes of (key, position), not a stream.

Legend: T tokens of all sequences, B sequences, M masked positions, W words, V pieces in the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bertkit.model.vocabulary import Vocabulary

MASKED, RANDOM = 0.8, 0.1  # shares of the chosen; the rest stays as it is
CHOICE, FATE, PIECE = 1, 2, 3  # what a random number is for
GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class MaskingRule:
    """How much of a sequence is predicted."""

    share: float = 0.15
    most: int = 0  # maximum per sequence; 0: only the share bounds them
    whole_words: bool = False  # all pieces of a word or none

    def counts(self, lengths: np.ndarray) -> np.ndarray:
        """(B,) positions to predict in sequences of these lengths: at least one."""
        wanted: np.ndarray = np.maximum(1, np.rint(self.share * lengths).astype(np.int64))
        return wanted.clip(max=self.most) if self.most else wanted


@dataclass(frozen=True)
class MaskingVocabulary:
    """What masking must know of a vocabulary."""

    size: int  # V
    mask: int
    special: tuple[int, ...]  # [CLS] and [SEP]
    control: tuple[int, ...]  # never predicted: these, [MASK] and [PAD]
    goes_on: np.ndarray  # (V,) bool: the piece continues a word


def pieces_of(vocabulary: Vocabulary) -> MaskingVocabulary:
    ids = vocabulary.special_ids
    goes_on = np.array([piece.startswith("##") for piece in vocabulary.pieces])
    control = tuple(ids[name] for name in ("[CLS]", "[SEP]", "[MASK]", "[PAD]"))
    return MaskingVocabulary(len(vocabulary.pieces), ids["[MASK]"], (ids["[CLS]"], ids["[SEP]"]), control, goes_on)


@dataclass(frozen=True)
class Masked:
    """The tokens as a model sees them, and what it is to tell."""

    input_ids: np.ndarray  # (T,) as given, with the chosen replaced
    positions: np.ndarray  # (M,) int64 into the T tokens, ascending
    labels: np.ndarray  # (M,) what stood there


def mask(
    ids: np.ndarray, cu_seqlens: np.ndarray, keys: np.ndarray, rule: MaskingRule, pieces: MaskingVocabulary
) -> Masked:
    """Hide tokens of B sequences, each by its own key (B,) uint64."""
    lengths = np.diff(cu_seqlens)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(ids)) - np.repeat(cu_seqlens[:-1], lengths)
    token_keys = keys[sequence]
    may = maskable(ids, pieces)
    wanted = rule.counts(lengths)
    choose = _whole_words if rule.whole_words else _single_pieces
    positions = choose(ids, sequence, _draw(token_keys, place, CHOICE), may, wanted, pieces)
    labels = ids[positions]
    fate = _draw(token_keys[positions], place[positions], FATE).astype(np.float64) * 2.0**-64
    drawn = _draw(token_keys[positions], place[positions], PIECE) % np.uint64(pieces.size)
    shown = np.where(fate < MASKED, pieces.mask, np.where(fate < MASKED + RANDOM, drawn.astype(np.int64), labels))
    seen = ids.copy()
    seen[positions] = shown
    return Masked(seen, positions, labels)


def maskable(ids: np.ndarray, pieces: MaskingVocabulary) -> np.ndarray:
    """(T,) bool: not a special token."""
    may: np.ndarray = np.ones(len(ids), bool)
    for token in pieces.control:
        may &= ids != token
    return may


def keys_of(seed: int, epoch: int, examples: np.ndarray) -> np.ndarray:
    """(B,) uint64 keys, one for each (seed, epoch, example)."""
    start = np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)
    of_epoch = _mix(_mix(start + GOLDEN) + np.array([epoch + 1], np.uint64) * GOLDEN)
    keys = _mix(of_epoch + (examples.astype(np.uint64) + np.uint64(1)) * GOLDEN)
    return keys


def _draw(keys: np.ndarray, place: np.ndarray, purpose: int) -> np.ndarray:
    """Random uint64 for (key, place in the sequence, purpose)."""
    return _mix(keys + (place.astype(np.uint64) * np.uint64(4) + np.uint64(purpose)) * GOLDEN)


def _mix(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finalizer (Steele, Lea & Flood 2014)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = bits ^ (bits >> np.uint64(31))
    return mixed


def _by_sequence(sequence: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Indices in the order of (sequence, noise); 2^24 sequences at the most, noise cut to 40 bits, ties by place."""
    key = (sequence.astype(np.uint64) << np.uint64(40)) | (noise >> np.uint64(24))
    order: np.ndarray = np.argsort(key, kind="stable")
    return order


def _turns(sequence: np.ndarray, count: int) -> np.ndarray:
    """Each entry's number within its sequence; `sequence` is sorted."""
    firsts = np.searchsorted(sequence, np.arange(count))
    turns: np.ndarray = np.arange(len(sequence)) - firsts[sequence]
    return turns


def _single_pieces(
    ids: np.ndarray,
    sequence: np.ndarray,
    noise: np.ndarray,
    may: np.ndarray,
    wanted: np.ndarray,
    pieces: MaskingVocabulary,
) -> np.ndarray:
    """(M,) the `wanted` (B,) maskable tokens of least noise in each sequence."""
    candidates = np.flatnonzero(may)
    order = candidates[_by_sequence(sequence[candidates], noise[candidates])]
    chosen = order[_turns(sequence[order], len(wanted)) < wanted[sequence[order]]]
    return np.sort(chosen)


def _whole_words(
    ids: np.ndarray,
    sequence: np.ndarray,
    noise: np.ndarray,
    may: np.ndarray,
    wanted: np.ndarray,
    pieces: MaskingVocabulary,
) -> np.ndarray:
    """(M,) pieces of whole words, drawn word by word; one that would be too much is passed over, as Google's code."""
    candidates = np.flatnonzero(may)
    if not len(candidates):
        return candidates
    follows = np.diff(candidates, prepend=-2) == 1  # the token before is a candidate too
    starts = np.flatnonzero(~(pieces.goes_on[ids[candidates]] & follows))  # (W,)
    sizes = np.diff(starts, append=len(candidates))
    heads = candidates[starts]
    order = _by_sequence(sequence[heads], noise[heads])
    owner, size = sequence[heads][order], sizes[order]
    turns = _turns(owner, len(wanted))
    taken, left = np.zeros(len(order), bool), wanted.copy()
    by_turn = np.argsort(turns, kind="stable")  # each sequence has one word a turn at the most
    for words in np.split(by_turn, np.flatnonzero(np.diff(turns[by_turn])) + 1):
        fits = words[size[words] <= left[owner[words]]]
        taken[fits] = True
        left[owner[fits]] -= size[fits]
        if not left.any():
            break
    word_taken = np.zeros(len(order), bool)
    word_taken[order] = taken
    chosen: np.ndarray = candidates[np.repeat(word_taken, sizes)]
    return chosen
