"""What the checks work on: a small BERT, ragged batches for each head, a few updates, and the gap between results.

Legend: B sequences, T tokens.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bertkit.distributed.world import World
from bertkit.engine.interface import (
    NO_LABEL,
    OF_TOKENS,
    Arrays,
    Backend,
    Batch,
    Engine,
    Job,
    LayoutKind,
    Precision,
    Update,
    label_counts,
)
from bertkit.model.config import Head, HeadKind, ModelConfig
from bertkit.model.parameters import initial

MODEL = ModelConfig(64, 2, 4, 256, vocab_size=400, max_position_embeddings=64)
HEADS: Mapping[HeadKind, Head] = {
    "classification": Head("classification", 3),
    "multilabel": Head("multilabel", 4),
    "regression": Head("regression", 1),
    "choice": Head("choice", 3),
    "tokens": Head("tokens", 5),
    "span": Head("span", 2),
    "pretraining": Head("pretraining", 2),
    "encoder": Head("encoder", 128, (1, 2)),
}
RATE = 1e-3


def example_batch(kind: HeadKind, sequences: int = 12, seed: int = 0) -> Batch:
    """A ragged batch of random tokens with labels for the head; lengths from 3 to 40."""
    stream = np.random.default_rng(seed)
    lengths = stream.integers(3, 41, sequences)
    cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    tokens = int(cu_seqlens[-1])
    batch: dict[str, np.ndarray] = {
        "input_ids": stream.integers(0, MODEL.vocab_size, tokens).astype(np.int32),
        "token_type_ids": stream.integers(0, 2, tokens).astype(np.int32),
        "cu_seqlens": cu_seqlens,
        "example_ids": np.arange(sequences // HEADS[kind].sequences_each),
    }
    if kind == "encoder":
        return batch
    if kind == "choice":
        return batch | {"labels": stream.integers(0, HEADS[kind].outputs, len(batch["example_ids"]))}
    if kind == "span":
        ends = stream.integers(0, lengths)
        return batch | {"start_positions": ends // 2, "end_positions": ends}
    if kind == "tokens":
        labels = stream.integers(0, HEADS[kind].outputs, tokens)
        return batch | {"token_labels": np.where(stream.random(tokens) < 0.3, NO_LABEL, labels)}
    if kind == "regression":
        return batch | {"labels": stream.random(sequences, dtype=np.float32)}
    if kind == "multilabel":
        return batch | {"labels": stream.integers(0, 2, (sequences, HEADS[kind].outputs)).astype(np.float32)}
    batch["labels"] = stream.integers(0, HEADS[kind].outputs, sequences)
    if kind == "pretraining":
        masked = np.sort(stream.choice(tokens, tokens // 7, replace=False))
        batch |= {
            "masked_positions": masked,
            "masked_labels": stream.integers(0, MODEL.vocab_size, len(masked)),
        }
    return batch


def part(batch: Batch, members: np.ndarray) -> Batch:
    """The sub-batch of these examples, in this order."""
    starts, ends = batch["cu_seqlens"][:-1], batch["cu_seqlens"][1:]
    each = len(starts) // len(batch["example_ids"])
    sequences = (members[:, None] * each + np.arange(each)).reshape(-1)
    tokens = np.concatenate([np.arange(starts[s], ends[s]) for s in sequences]) if len(members) else np.empty(0, int)
    lengths = (ends - starts)[sequences]
    new: dict[str, np.ndarray] = {
        "input_ids": batch["input_ids"][tokens],
        "token_type_ids": batch["token_type_ids"][tokens],
        "cu_seqlens": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32),
    }
    for name in ("example_ids", "labels", "start_positions", "end_positions", "teacher_logits"):
        if name in batch:
            new[name] = batch[name][members]
    new |= {name: batch[name][tokens] for name in OF_TOKENS if name in batch}
    if "masked_positions" in batch:
        new_place = {int(old): place for place, old in enumerate(tokens)}
        kept = [(new_place[int(p)], n) for n, p in enumerate(batch["masked_positions"]) if int(p) in new_place]
        kept.sort()
        new["masked_positions"] = np.array([place for place, _ in kept], np.int64)
        names = ("masked_labels", "teacher_masked_logits")
        new |= {name: batch[name][[n for _, n in kept]] for name in names if name in batch}
    return new


def trained_heads(backend: Backend) -> tuple[HeadKind, ...]:
    """The kinds of heads that it trains."""
    if not backend.capabilities.trains:
        return ()
    return tuple(kind for kind in backend.capabilities.heads if HEADS[kind].trained)


def job(kind: HeadKind, layout: LayoutKind | str = "auto", dropout: bool = False, precision: Precision = "fp32") -> Job:
    model = MODEL if dropout else MODEL.without_dropout()
    kinds: Mapping[str, LayoutKind] = {"padded": "padded", "unpadded": "unpadded", "packed": "packed"}
    weights = initial(MODEL, HEADS[kind], 1)
    return Job(model, HEADS[kind], weights, precision=precision, seed=3, layout=kinds.get(layout, "auto"))


def with_settings(backend: Backend, wanted: Job, **changed: str | int | float | bool) -> Engine:
    """An engine alone in its world; settings of its card are their defaults but for those `changed`."""
    settings = {name: setting.default for name, setting in backend.settings.items()} | changed
    return backend.engine(dataclasses.replace(wanted, settings=settings), World())


def train(engine: Engine, batch: Batch, kind: HeadKind, steps: int, splits: int = 1, first: int = 1) -> list[float]:
    """`steps` updates on the same batch, cut into `splits` micro-batches. Returns the losses."""
    members = np.arange(len(batch["example_ids"]))
    micro = tuple(part(batch, some) for some in np.array_split(members, splits))
    counts = label_counts(kind, [batch])
    return [float(engine.train_step(Update(step, micro, counts), RATE)["loss"]) for step in range(first, first + steps)]


def gap(left: Mapping[str, np.ndarray], right: Mapping[str, np.ndarray]) -> float:
    """The largest difference between arrays of the same names."""
    assert set(left) == set(right), f"names differ: {sorted(set(left) ^ set(right))}"
    return max((float(np.abs(left[n] - right[n]).max(initial=0.0)) for n in left), default=0.0)


def first_moments(engine: Engine) -> Arrays:
    """Adam's first moments: after one update (1 - beta1) times the clipped gradients."""
    moments = {name: array for name, array in engine.state_dict().items() if name.startswith("adam.first.")}
    assert moments, "state_dict holds no adam.first.* moments"
    return moments
