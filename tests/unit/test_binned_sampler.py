"""Batches of binned data: one bin each, nothing lost or doubled, a pure function of the step."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.pretraining import BinnedSampler, MaskingRule, PretrainingData, open_data, updates
from bertkit.data.pretraining.sampler import ShardRange
from bertkit.model.tokenizer_files import read_vocabulary
from pretraining_files import known_sequences, write_parquet, write_vocabulary

quick = settings(deadline=None, max_examples=60)


def parts_of(sizes: list[tuple[int, int]]) -> tuple[ShardRange, ...]:
    firsts = np.cumsum([0, *(size for _, size in sizes)])
    return tuple(ShardRange(bin, int(first), size) for (bin, size), first in zip(sizes, firsts, strict=False))


shards = st.lists(st.tuples(st.integers(-1, 2), st.integers(0, 9)), min_size=1, max_size=12).filter(
    lambda sizes: any(size for _, size in sizes)
)
samplers = st.builds(
    lambda sizes, *rest: BinnedSampler(parts_of(sizes), *rest),
    shards, st.integers(1, 12), st.integers(0, 2**31), st.integers(1, 20),
)  # fmt: skip


def bin_of(sampler: BinnedSampler, example: int) -> int:
    return next(part.bin for part in sampler.parts if part.first <= example < part.first + part.sequences)


@quick
@given(samplers, st.integers(0, 3))
def test_an_epoch_has_every_sequence_once_and_each_batch_one_bin(sampler: BinnedSampler, epoch: int) -> None:
    first = epoch * sampler.steps_per_epoch + 1
    batches = [examples for _, examples in sampler.batches(first, first + sampler.steps_per_epoch - 1)]
    assert sorted(np.concatenate(batches)) == list(range(sampler.examples))
    assert all(len({bin_of(sampler, example) for example in batch}) == 1 for batch in batches)
    full = sum(len(batch) == sampler.batch_size for batch in batches)
    assert full == sum(size // sampler.batch_size for size in sampler.bins.values())


@quick
@given(samplers, st.integers(1, 40), st.integers(0, 10))
def test_a_batch_depends_on_the_step_alone(sampler: BinnedSampler, first: int, more: int) -> None:
    for step, examples in sampler.batches(first, first + more):
        assert np.array_equal(dataclasses.replace(sampler).batch(step), examples)


def test_the_order_is_pinned() -> None:
    """Other numbers here would mean that a seeded run is no longer the run it was."""
    sampler = BinnedSampler(parts_of([(0, 5), (1, 4), (0, 3)]), 4, seed=7, window=4)
    assert [sampler.batch(step).tolist() for step in range(1, 5)] == [
        [8, 6, 5, 7],
        [3, 1, 9, 0],
        [2, 10, 11, 4],
        [6, 8, 7, 5],
    ]


def test_windows_keep_what_is_read_together_small() -> None:
    sampler = BinnedSampler(parts_of([(0, 100)] * 50), 50, seed=1, window=300)
    for _, examples in sampler.batches(1, 100):
        assert len(set(examples // 100)) <= 3
    assert len(set(sampler.batch(1) // 100)) == 3  # and shuffled within


@pytest.fixture(scope="module")
def binned(tmp_path_factory: pytest.TempPathFactory) -> PretrainingData:
    folder = tmp_path_factory.mktemp("binned")
    for bin in range(3):
        write_parquet(folder / f"part.0.parquet_{bin}", known_sequences(20 + bin, bin), static=False, bin=bin)
    vocabulary = read_vocabulary(write_vocabulary(folder))
    return open_data(folder, vocabulary, rule=MaskingRule(0.15, 5, whole_words=True), seed=1)


@pytest.mark.parametrize(("ranks", "micro"), [(1, 0), (2, 0), (5, 2), (40, 1)])  # three shards, up to 40 ranks
def test_ranks_share_each_update_whole(binned: PretrainingData, ranks: int, micro: int) -> None:
    sampler = binned.sampler(8, seed=5)
    steps = sampler.steps_per_epoch
    seen = []
    for step in range(1, 2 * steps + 1):
        shares = [next(updates(binned, sampler, step, step, rank, ranks, micro)) for rank in range(ranks)]
        assert len({len(share.micro_batches) for share in shares}) == 1
        batches = [batch for share in shares for batch in share.micro_batches]
        examples = np.concatenate([batch["example_ids"] for batch in batches])
        assert sorted(examples) == sorted(sampler.batch(step))
        masked = sum(len(batch["masked_labels"]) for batch in batches)
        lengths = np.concatenate([np.diff(batch["cu_seqlens"]) for batch in batches]).astype(int)
        counts = {"sequences": len(examples), "masked": masked}
        counts |= {"tokens": lengths.sum(), "pairs": (lengths**2).sum()}
        assert all(share.label_counts == counts for share in shares)
        seen += examples.tolist() if step <= steps else []
    assert sorted(seen) == list(range(len(binned)))


def test_masks_change_with_the_epoch_and_not_with_the_ranks(binned: PretrainingData) -> None:
    sampler = binned.sampler(8, seed=5)

    def hidden(step: int, ranks: int) -> dict[int, list[int]]:
        found = {}
        for rank in range(ranks):
            for batch in next(updates(binned, sampler, step, step, rank, ranks)).micro_batches:
                for row, example in enumerate(batch["example_ids"].tolist()):
                    found[example] = batch["input_ids"][slice(*batch["cu_seqlens"][row : row + 2])].tolist()
        return found

    assert hidden(1, 1) == hidden(1, 3)
    first = {k: v for step in range(1, sampler.steps_per_epoch + 1) for k, v in hidden(step, 1).items()}
    second = {
        k: v
        for step in range(sampler.steps_per_epoch + 1, 2 * sampler.steps_per_epoch + 1)
        for k, v in hidden(step, 1).items()
    }
    assert first.keys() == second.keys()
    assert sum(first[key] != second[key] for key in first) > 0.8 * len(first)
