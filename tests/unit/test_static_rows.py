"""Batches in arrays of fixed sizes: every token in its place, every stretch kept short, every batch in some size."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from bertkit.conformance.distillation import WIDTH, states_job, words_batch, words_job
from bertkit.conformance.fixtures import HEADS, example_batch, job
from bertkit.engine.interface import NO_LABEL, Batch, BatchLimits, Limits, LossSpec, SoftLabels, label_counts
from bertkit.engine.layouts import pack
from bertkit.engine.static_plan import StaticPlan
from bertkit.engine.static_shapes import Shapes, Sizes, Static, shapes, shapes_of, static
from bertkit.errors import UserError
from bertkit.model.config import HeadKind
from ragged import features_of

LENGTHS = st.lists(st.integers(1, 40), min_size=1, max_size=14)


def batch_of(lengths: list[int], masked: list[int] | None = None) -> Batch:
    sizes = np.array(lengths, np.int64)
    labels: Mapping[str, np.ndarray] = {
        "labels": np.arange(len(lengths)) % 3,
        "start_positions": sizes // 3,
        "end_positions": sizes // 2,
    }
    found = dict(features_of(lengths, **labels).batch(np.arange(len(lengths))))
    if masked is not None:
        found |= {"masked_positions": np.array(masked, np.int64), "masked_labels": 7 + np.array(masked, np.int64)}
    return found


@st.composite
def made(draw: st.DrawFn) -> tuple[list[int], Static]:
    """A batch in the sizes that were made for it, or in one of a run's."""
    lengths = draw(LENGTHS)
    flat = draw(st.booleans())
    planned = shapes_of(np.array(lengths), 0, flat)
    if draw(st.booleans()):
        limits = BatchLimits(len(lengths) + draw(st.integers(0, 5)), max(lengths) + draw(st.integers(0, 20)))
        planned = shapes([limits], draw(st.integers(1, 9)), flat)
    sizes = planned.fit(np.array(lengths))
    assert sizes is not None
    return lengths, static(batch_of(lengths), "classification", sizes)


# ---- places ----


@given(made())
def test_every_token_stands_in_its_place(case: tuple[list[int], Static]) -> None:
    """Side by side with its own sequence's, which begins where it is said to and stays in one row."""
    lengths, found = case
    batch = batch_of(lengths)
    slots, whole = found.token_slots, found.whole
    assert len(set(slots.tolist())) == sum(lengths)
    assert slots.min() >= 0
    assert slots.max() < found.sizes.slots
    starts = batch["cu_seqlens"]
    places = np.concatenate([np.arange(length) for length in lengths])
    for name, values in (("input_ids", batch["input_ids"]), ("token_type_ids", batch["token_type_ids"])):
        wanted = np.zeros(found.sizes.slots, np.int64)
        wanted[slots] = values
        assert np.array_equal(whole[name], wanted), name
    assert np.array_equal(whole["position_ids"][slots], places)
    for number, length in enumerate(lengths):
        own = slots[starts[number] : starts[number + 1]]
        assert np.array_equal(own, whole["first"][number] + np.arange(length))
        assert own[0] // found.sizes.width == own[-1] // found.sizes.width
    assert found.sequences == len(lengths)
    assert whole["lengths"][: len(lengths)].tolist() == lengths


@given(made())
def test_slots_of_one_row_are_of_one_segment_where_they_are_of_one_sequence(case: tuple[list[int], Static]) -> None:
    lengths, found = case
    owner = np.full(found.sizes.slots, -1)
    owner[found.token_slots] = np.repeat(np.arange(len(lengths)), lengths)
    segments = found.whole["segments"]
    assert np.array_equal(segments == 0, owner == -1)
    rows = found.sizes.rows
    for held, whose in zip(segments.reshape(rows, -1), owner.reshape(rows, -1), strict=True):
        assert np.array_equal(held[:, None] == held[None, :], whose[:, None] == whose[None, :])


@given(made())
def test_bounds_cut_all_slots_into_the_sequences_and_short_rests(case: tuple[list[int], Static]) -> None:
    lengths, found = case
    bounds, sizes = found.whole["bounds"], found.sizes
    assert len(bounds) == sizes.segments + 1
    assert bounds[0] == 0
    assert bounds[-1] == sizes.slots
    stretches = np.diff(bounds)
    assert (stretches >= 0).all()
    assert (stretches <= sizes.longest).all()
    pairs = {(int(a), int(b)) for a, b in pairwise(bounds) if a < b}
    own = {(int(first), int(first) + length) for first, length in zip(found.whole["first"], lengths, strict=False)}
    assert own <= pairs
    within = {start // sizes.width == (stop - 1) // sizes.width for start, stop in pairs}
    assert within == {True}


@given(made())
def test_shapes_follow_from_the_sizes_alone(case: tuple[list[int], Static]) -> None:
    _, found = case
    empty = dict.fromkeys(("input_ids", "token_type_ids"), np.empty(0, np.int64)) | {
        "cu_seqlens": np.zeros(1, np.int64)
    }
    other = static(empty, "classification", found.sizes)
    assert {name: array.shape for name, array in found.whole.items()} == {
        name: array.shape for name, array in other.whole.items()
    }
    assert {array.dtype for array in (*found.whole.values(), *other.whole.values())} == {np.dtype(np.int64)}
    assert other.whole["bounds"][-1] == found.sizes.slots
    assert np.diff(other.whole["bounds"]).max() <= found.sizes.longest


# ---- labels ----


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", ["classification", "regression", "span", "pretraining"])
def test_labels_beyond_the_batch_are_counted_by_no_loss(kind: HeadKind, flat: bool) -> None:
    lengths, masked = [5, 9, 3], [0, 4, 13, 16] if kind == "pretraining" else None
    whole_batch = batch_of(lengths, masked)
    names = {"span": ("start_positions", "end_positions")}.get(kind, ("labels",))
    others = {"labels", "start_positions", "end_positions"} - set(names)
    batch = {name: array for name, array in whole_batch.items() if name not in others}
    sizes = Sizes(*((1, 128) if flat else (4, 16)), sequences=6, masked=8, longest=16)
    found = static(batch, kind, sizes, label_counts(kind, [batch]))
    if kind == "regression":
        assert found.real["labels"].tolist() == [0, 1, 2, 0, 0, 0]
        assert found.real["counted"].tolist() == [1, 1, 1, 0, 0, 0]
        assert found.real["labels"].dtype == np.float32
    else:
        for name in names:
            assert found.whole[name].tolist() == [*batch[name].tolist(), NO_LABEL, NO_LABEL, NO_LABEL], name
    assert found.real["counts"].tolist() == [3, 4 if kind == "pretraining" else 1]
    if masked is not None:
        assert found.whole["masked"].tolist() == [*found.token_slots[masked].tolist(), 0, 0, 0, 0]
        assert found.whole["masked_labels"].tolist() == [*(7 + np.array(masked)).tolist(), *[NO_LABEL] * 4]
    without = static(batch, kind, sizes)
    assert without.real == {}
    assert not {"labels", "start_positions", "masked_labels"} & set(without.whole)


# ---- sizes ----


@st.composite
def planned(draw: st.DrawFn) -> tuple[BatchLimits, Shapes, list[int], int]:
    """A run's sizes, and a batch within its limits."""
    limits = BatchLimits(draw(st.integers(1, 40)), draw(st.integers(1, 50)), draw(st.integers(0, 30)))
    plan = shapes([limits], draw(st.integers(1, 12)), draw(st.booleans()))
    lengths = draw(st.lists(st.integers(1, limits.longest), min_size=1, max_size=limits.sequences))
    return limits, plan, lengths, draw(st.integers(0, limits.masked))


def steps_of(plan: Shapes) -> list[int]:
    return [one.width if plan.flat else one.rows for one in plan]


@given(planned())
def test_any_batch_within_the_limits_has_a_size_and_no_smaller_one_holds_it(
    case: tuple[BatchLimits, Shapes, list[int], int],
) -> None:
    _, plan, lengths, masked = case
    sizes = plan.fit(np.array(lengths), masked)
    assert sizes is not None
    assert sizes in list(plan)
    assert sizes.sequences >= len(lengths)
    assert sizes.masked >= masked
    assert sizes.longest >= max(lengths)
    needed = sum(lengths) if plan.flat else len(pack(np.array(lengths), sizes.width))
    steps = steps_of(plan)
    own = sizes.width if plan.flat else sizes.rows
    assert own == min(step for step in steps if step >= needed)
    assert (sizes.rows == 1) if plan.flat else (sizes.width == sizes.longest)


@given(planned(), st.integers(1, 5))
def test_a_batch_beyond_the_limits_has_none(case: tuple[BatchLimits, Shapes, list[int], int], more: int) -> None:
    limits, plan, lengths, masked = case
    too_many = np.ones(limits.sequences + more, np.int64)
    assert plan.fit(too_many, masked) is None
    assert plan.fit(np.array(lengths), limits.masked + more) is None
    assert plan.fit(np.array([plan.sizes[0].longest + more]), masked) is None


@given(st.integers(1, 300), st.integers(1, 600), st.integers(1, 40), st.booleans())
@example(sequences=32, longest=128, count=8, flat=False)
def test_sizes_are_few_ascending_and_even(sequences: int, longest: int, count: int, flat: bool) -> None:
    plan = shapes([BatchLimits(sequences, longest)], count, flat)
    steps = steps_of(plan)
    assert 1 <= len(plan) <= count
    assert steps == sorted(set(steps))
    assert len(set(plan)) == len(plan)
    most = sequences * longest if flat else min(sequences, -(-2 * sequences * longest // plan.sizes[0].longest))
    assert most <= steps[-1] < most + (128 if flat else 1)
    assert all(sizes.slots % 8 == 0 for sizes in plan)
    assert {sizes.longest - longest for sizes in plan} <= set(range(8))
    apart = np.diff([0, *steps])
    assert apart.max() <= -(-most // count) + (128 if flat else 1)


@pytest.mark.parametrize("count", [0, -3])
def test_no_size_at_all_is_refused(count: int) -> None:
    with pytest.raises(UserError, match=f"device.shapes = {count}"):
        shapes([BatchLimits(32, 128)], count)


@given(LENGTHS, st.integers(0, 50), st.booleans())
def test_a_size_for_one_batch_is_less_than_half_too_large(lengths: list[int], masked: int, flat: bool) -> None:
    plan = shapes_of(np.array(lengths), masked, flat)
    sizes = plan.fit(np.array(lengths), masked)
    assert len(plan) == 1
    assert [sizes] == list(plan)
    assert sizes is not None
    amounts = [(len(lengths), sizes.sequences), (masked, sizes.masked)]
    if flat:
        assert sum(lengths) <= sizes.slots < 1.5 * sum(lengths) + 128
    else:
        amounts.append((len(pack(np.array(lengths), sizes.width)), sizes.rows))
    for needed, held in amounts:
        assert needed <= held < max(1, 1.5 * needed)


# ---- the packer ----


def best_fit(lengths: list[int], width: int) -> list[list[int]]:
    """Longest first, each into the fullest row that has room, the earliest of those; a new row where none has."""
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        rooms = [(width - sum(lengths[held] for held in row), number) for number, row in enumerate(rows)]
        fitting = [pair for pair in rooms if pair[0] >= lengths[index]]
        if fitting:
            rows[min(fitting)[1]].append(index)
        else:
            rows.append([index])
    return rows


@settings(max_examples=200)
@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 60))
def test_rows_are_those_of_best_fit_decreasing(lengths: list[int], width: int) -> None:
    assume(not lengths or max(lengths) <= width)
    assert pack(np.array(lengths, np.int64), width) == best_fit(lengths, width)


@pytest.mark.parametrize("loss", ["hard", "logits", "words", "states"])
def test_an_empty_batch_has_the_arrays_of_a_real_one(loss: str) -> None:
    """A program is made of the one and run on the other, whatever else a row's task brings."""
    kind: HeadKind = "encoder" if loss == "states" else "pretraining" if loss == "words" else "classification"
    batch = dict(example_batch(kind))
    wanted = states_job() if loss == "states" else words_job() if loss == "words" else job(kind)
    if loss == "logits":
        wanted = dataclasses.replace(wanted, loss=LossSpec(teacher=SoftLabels()))
        batch |= {"teacher_logits": np.ones((12, HEADS[kind].outputs), np.float32)}
    if loss == "states":
        batch |= {"labels": np.zeros(12, np.int64), "teacher_states": np.ones((len(batch["input_ids"]), 3 * WIDTH))}
    batch |= words_batch() if loss == "words" else {}
    limits = BatchLimits(12, 40, masked=len(batch.get("masked_labels", ())))
    plan = StaticPlan(dataclasses.replace(wanted, limits=Limits((limits,), ())))
    real = plan.make(batch, label_counts(kind, [batch]))
    empty = plan.empty(real.sizes, training=True)
    for one, other in ((real.whole, empty.whole), (real.real, empty.real)):
        assert {name: array.shape for name, array in one.items()} == {n: array.shape for n, array in other.items()}
