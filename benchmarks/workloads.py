"""What the competitors compute: examples with the lengths of a data set, and which of them each round takes.

A pool of 50 batches is drawn and sorted by length. *Grouped* batches are consecutive in it, as Hugging Face's
`group_by_length` makes them of 50 batches; a round takes K of the 50, evenly spaced. *Random* batches are the same
number of examples, evenly spaced over the same pool one by one and then shuffled. So both have the pool's lengths, and
neither is easier than in a long training: sorting K batches alone would pad more than sorting 50, and shuffling K
grouped batches would give random batches of only K different lengths. With K = 50 both are exactly the same examples;
with fewer their tokens differ by a per cent or so, and times are compared per real token.

Legend: B batch size, K batches of a round, R rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkit.data.features import Features
from bertkit.files.disk import read_arrays, write_arrays
from bertkit.model.config import Head

MEGABATCH = 50  # batches that are sorted together: transformers 5.17, trainer_pt_utils.get_length_grouped_indices


@dataclass(frozen=True)
class Lengths:
    """The published shape of a data set's lengths, of at most `limit` tokens."""

    limit: int
    mean: float
    quantiles: tuple[tuple[float, int], ...]  # (share, tokens), ascending, up to share 1


@dataclass(frozen=True)
class Kind:
    head: Head
    batch_size: int
    lengths: Lengths


# Measured with bert-base-uncased's vocabulary: MRPC's 3,668 training pairs; SQuAD v1.1's windows of at most 384 tokens.
KINDS = {
    "mrpc": Kind(
        Head("classification", 2), 32, Lengths(128, 53.2, ((0.5, 53), (0.9, 70), (0.99, 83), (1.0, 103)))
    ),
    "squad": Kind(Head("span", 2), 8, Lengths(384, 178.5, ((0.5, 164), (0.9, 272), (0.99, 384), (1.0, 384)))),
}  # fmt: skip


def same(tokens: int) -> Lengths:
    return Lengths(tokens, tokens, ((1.0, tokens),))


@dataclass(frozen=True)
class Round:
    random: np.ndarray  # (K, B) example numbers
    grouped: np.ndarray  # (K, B) in batches of like length, longest batch first


def seeded_lengths(shape: Lengths, count: int, stream: np.random.Generator) -> np.ndarray:
    """(count,) lengths: straight lines between the quantiles, the shortest chosen so that the mean fits."""
    shares, tokens = [0.0, *(s for s, _ in shape.quantiles)], [t for _, t in shape.quantiles]
    rest = sum((shares[n + 2] - shares[n + 1]) * (tokens[n] + tokens[n + 1]) / 2 for n in range(len(tokens) - 1))
    shortest = 2 * (shape.mean - rest) / shares[1] - tokens[0]
    places = (np.arange(count) + stream.random(count)) / count  # one draw in each of `count` equal parts
    return stream.permutation(np.interp(places, shares, [shortest, *tokens]).round().astype(np.int64))


def seeded_features(kind: Kind, count: int, vocabulary: int, seed: int) -> Features:
    """`count` examples of random tokens (two segments) with random labels."""
    stream = np.random.default_rng(seed)
    lengths = seeded_lengths(kind.lengths, count, stream)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)])
    ids = stream.integers(min(1000, vocabulary // 2), vocabulary, int(cu_seqlens[-1])).astype(np.int32)
    within = np.arange(cu_seqlens[-1]) - np.repeat(cu_seqlens[:-1], lengths)
    first_part = lengths // 2 if kind.head.kind == "classification" else np.minimum(lengths // 2, 14)
    types = (within >= np.repeat(first_part, lengths)).astype(np.int32)
    return Features(ids, types, cu_seqlens, labels(kind, lengths, stream))


def labels(kind: Kind, lengths: np.ndarray, stream: np.random.Generator) -> dict[str, np.ndarray]:
    if kind.head.kind == "classification":
        return {"labels": stream.integers(0, kind.head.outputs, len(lengths))}
    ends = stream.integers(0, lengths)
    return {"start_positions": np.maximum(ends - 3, 0), "end_positions": ends}


def mrpc_features(file: Path, vocab: Path, limit: int) -> Features:
    """MRPC's own pairs, tokenised by bertkit."""
    from bertkit.data.encoding import encode
    from bertkit.data.tasks.glue import GLUE
    from bertkit.data.tasks.tabular import read_examples
    from bertkit.model.tokenizer_files import read_vocabulary

    task = next(task for task in GLUE if task.name == "mrpc")
    examples = read_examples(task, file, task.splits["train"][0].columns)
    assert examples.labels is not None  # noqa: S101  # labelled is the default
    return encode(read_vocabulary(vocab), examples.first, examples.second, {"labels": examples.labels}, limit)


def plan(lengths: np.ndarray, batch_size: int, steps: int, rounds: int, seed: int) -> list[Round]:
    """`rounds` + 1 rounds of `steps` batches; the first is for warming up and holds the longest batch."""
    stream = np.random.default_rng(seed)
    pool = stream.permutation(len(lengths))[: MEGABATCH * batch_size]
    if len(pool) < MEGABATCH * batch_size or steps > MEGABATCH:
        raise SystemExit(f"{steps} steps of {MEGABATCH} batches of {batch_size}: there are {len(lengths)} examples")
    pool = pool[np.argsort(-lengths[pool], kind="stable")]
    made = []
    for number in range(rounds + 1):
        part = (number - 0.5) / rounds if number else 0.0  # its place in each of the equal parts
        grouped = pool.reshape(MEGABATCH, batch_size)[places(MEGABATCH, steps, part)]
        singles = pool[places(len(pool), grouped.size, part)]
        made.append(Round(stream.permutation(singles).reshape(grouped.shape), grouped))
    return made


def places(total: int, count: int, part: float) -> np.ndarray:
    """(count,) distinct places of `total`, one in each of `count` equal parts, `part` (0 <= part < 1) of its way in."""
    return ((np.arange(count) + part) * total / count).astype(np.int64)


def write(path: Path, features: Features, rounds: Sequence[Round]) -> None:
    arrays = {"ids": features.input_ids, "types": features.token_type_ids, "cu_seqlens": features.cu_seqlens}
    arrays |= {f"label.{name}": values for name, values in features.labels.items()}
    for number, one in enumerate(rounds):
        arrays |= {f"random.{number}": one.random, f"grouped.{number}": one.grouped}
    write_arrays(path, arrays, {})


def read(path: Path) -> tuple[Features, list[Round]]:
    arrays, _ = read_arrays(path)
    known = {name.removeprefix("label."): values for name, values in arrays.items() if name.startswith("label.")}
    count = sum(name.startswith("random.") for name in arrays)
    rounds = [Round(arrays[f"random.{number}"], arrays[f"grouped.{number}"]) for number in range(count)]
    return Features(arrays["ids"], arrays["types"], arrays["cu_seqlens"], known), rounds
