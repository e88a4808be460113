"""Built-in length distributions, so that speed is measured on real lengths where the data itself is not at hand.

Each is a small table of quantiles, in tokens with [CLS] and [SEP]; between two of them the distribution is taken as
straight. What they come from:

- mrpc: measured. GLUE's MRPC train pairs (3,668), bert-base-uncased's vocabulary: mean 53.2, mean square 3,004.
- sst2: measured. GLUE's SST-2 dev sentences (872; the train set is mostly phrases), the same vocabulary: mean 25.2,
  mean square 741.
- squad384: measured. SQuAD 1.1 dev cut into windows of 384 with stride 128, the question cut to 64 pieces, as
  google-research/bert's run_squad.py does (10,833 windows), the same vocabulary: mean 178.5, mean square 36,554.
- wiki512: published. The histogram of 16.3 million pre-training sequences from Wikipedia at 512 of Krell et al. 2021
  (arXiv:2107.02027; graphcore/examples, tutorials/blogs_code/packedBERT/histograms.py): mean 255.8, mean square
  98,826; 23 % of the sequences are full.
- wiki128: assumed. Every sequence full, as first-phase pre-training data nearly is.
- a whole number: assumed. Every sequence that long, under a classification head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bertkit.errors import UserError, nearest
from bertkit.model.config import Head

LEVELS = np.array([*(np.arange(64) / 64), 0.99, 1.0])  # of the quantiles in each table
SHORTEST = 3  # [CLS], one token, [SEP]
MASKED = 0.15  # share of a pre-training sequence's tokens that are predicted (Devlin et al. 2018)


@dataclass(frozen=True)
class Distribution:
    """How long the sequences of some data are, and the head that data is for."""

    title: str
    quantiles: tuple[int, ...]  # at LEVELS; a single one: every sequence is that long
    head: Head
    most_masked: int = 0  # masked maximum per sequence; pre-training only


_MRPC = (
    19, 28, 30, 32, 33, 35, 36, 37, 38, 38, 39, 40, 41, 41, 42, 43, 44, 44, 45, 45, 46, 46, 47, 48, 49, 49, 50, 50, 51,
    52, 52, 53, 53, 54, 54, 55, 56, 56, 57, 58, 58, 59, 59, 60, 60, 61, 61, 62, 62, 63, 64, 64, 65, 66, 67, 68, 69, 69,
    70, 72, 73, 75, 77, 81, 83, 103,
)  # fmt: skip
_SST2 = (
    4, 8, 9, 10, 10, 11, 12, 12, 13, 13, 14, 14, 15, 16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 20, 21, 21, 22, 22, 23, 23,
    24, 24, 24, 25, 25, 26, 26, 27, 27, 27, 28, 28, 29, 29, 30, 30, 31, 32, 32, 33, 34, 34, 35, 36, 36, 37, 39, 39, 40,
    41, 42, 44, 46, 49, 52, 55,
)  # fmt: skip
_SQUAD384 = (
    41, 61, 76, 87, 94, 103, 108, 112, 116, 119, 121, 124, 126, 128, 130, 131, 133, 134, 136, 138, 140, 142, 144, 146,
    147, 149, 151, 153, 155, 157, 159, 162, 164, 167, 169, 171, 174, 176, 179, 181, 183, 186, 189, 193, 196, 199, 202,
    206, 210, 214, 218, 222, 228, 235, 242, 251, 260, 267, 277, 290, 302, 326, 363, 384, 384, 384,
)  # fmt: skip
_WIKI512 = (
    5, 25, 31, 35, 39, 43, 46, 50, 53, 57, 60, 64, 67, 71, 75, 79, 84, 89, 94, 99, 105, 111, 117, 124, 131, 139, 147,
    155, 164, 173, 183, 193, 204, 215, 227, 240, 253, 267, 282, 298, 314, 332, 350, 369, 390, 411, 434, 459, 484, 511,
    *(512,) * 16,
)  # fmt: skip

BUILT_IN: Mapping[str, Distribution] = {
    "mrpc": Distribution("MRPC train pairs, measured", _MRPC, Head("classification", 2)),
    "sst2": Distribution("SST-2 dev sentences, measured", _SST2, Head("classification", 2)),
    "squad384": Distribution("SQuAD 1.1 dev windows of 384, measured", _SQUAD384, Head("span", 2)),
    "wiki128": Distribution("Wikipedia, first phase, every sequence full", (128,), Head("pretraining", 2), 20),
    "wiki512": Distribution("Wikipedia at 512, published histogram", _WIKI512, Head("pretraining", 2), 76),
}


def find_distribution(name: str) -> Distribution:
    """A built-in one by name, or for a whole number sequences of that length. Raises UserError for anything else."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    if not (name.isascii() and name.isdigit()):
        raise UserError(f"there is no length distribution {name!r}", f"{nearest(name, BUILT_IN)} Or a whole number")
    if int(name) < SHORTEST:
        raise UserError(f"a sequence of {name} tokens is too short", f"the shortest has {SHORTEST}")
    return Distribution(f"every sequence of {name} tokens", (int(name),), Head("classification", 2))


def lengths(name: str, count: int, seed: int, longest: int = 0) -> np.ndarray:
    """(count,) int64 lengths in random order; the same for the same arguments. `longest` cuts them; 0: as they are.

    The inverse of the distribution function at one random place in each of `count` equal parts of [0, 1), so that a
    small sample has nearly the mean of a large one.
    """
    table = find_distribution(name).quantiles
    stream = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, count])))
    places = stream.permutation((np.arange(count) + stream.random(count)) / count)
    drawn = np.interp(places, LEVELS, table) if len(table) > 1 else np.full(count, table[0])
    whole: np.ndarray = np.rint(drawn).astype(np.int64)
    return whole.clip(max=longest) if longest else whole


def masked_counts(lengths: np.ndarray, most: int) -> np.ndarray:
    """How many positions of each sequence are predicted: 15 %, at least 1, at most `most` (google-research/bert)."""
    counts: np.ndarray = np.minimum(most, np.maximum(1, np.rint(MASKED * lengths).astype(np.int64)))
    return counts
