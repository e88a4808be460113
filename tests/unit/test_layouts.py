"""Layouts: wherever a token is put, it is there once, with its own id, type, position and neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.engine.interface import LayoutKind
from bertkit.engine.layouts import Grain, Layout, lay_out, length_groups, pack
from bertkit.errors import UserError
from ragged import batch_of

quick = settings(deadline=None, max_examples=60)
KINDS: tuple[LayoutKind, ...] = ("padded", "unpadded", "packed")
kinds = st.sampled_from(KINDS)
lengths_of = st.lists(st.integers(1, 60), min_size=1, max_size=25)


def slot_owners(layout: Layout, lengths: list[int]) -> np.ndarray:
    """(N,) the sequence that stands in each slot, -1 where there is none."""
    owners = np.full(layout.slots, -1)
    owners[layout.token_slots] = np.repeat(np.arange(len(lengths)), lengths)
    return owners


@quick
@given(lengths_of, kinds, st.integers(0, 20))
def test_each_token_has_a_slot_of_its_own_with_its_values(lengths: list[int], kind: LayoutKind, more: int) -> None:
    batch = batch_of(lengths)
    layout = lay_out(batch, kind, max(lengths) + more if more else 0)
    slots = layout.token_slots
    assert layout.kind == kind
    assert len(set(slots.tolist())) == len(slots) == sum(lengths)
    assert slots.min() >= 0
    assert slots.max() < layout.slots
    assert np.array_equal(layout.input_ids[slots], batch["input_ids"])
    assert np.array_equal(layout.token_type_ids[slots], batch["token_type_ids"])
    assert layout.position_ids[slots].tolist() == [place for length in lengths for place in range(length)]


@quick
@given(lengths_of, kinds)
def test_slots_without_a_token_hold_zeros(lengths: list[int], kind: LayoutKind) -> None:
    layout = lay_out(batch_of(lengths), kind)
    empty = slot_owners(layout, lengths) < 0
    assert not layout.input_ids[empty].any()
    assert not layout.token_type_ids[empty].any()
    assert not layout.position_ids[empty].any()


@quick
@given(lengths_of, kinds, st.integers(0, 20))
def test_groups_cover_each_real_slot_once(lengths: list[int], kind: LayoutKind, more: int) -> None:
    layout = lay_out(batch_of(lengths), kind, max(lengths) + more if more else 0)
    seen = np.concatenate([group.slots[group.segments > 0] for group in layout.groups])
    assert sorted(seen) == sorted(layout.token_slots)
    for group in layout.groups:
        assert group.slots.shape == group.segments.shape
        assert group.slots.min() >= 0
        assert group.slots.max() < layout.slots


@quick
@given(lengths_of, kinds, st.integers(0, 40))
def test_equal_segments_in_a_row_mean_the_same_sequence(lengths: list[int], kind: LayoutKind, more: int) -> None:
    layout = lay_out(batch_of(lengths), kind, max(lengths) + more if more else 0)
    owners = slot_owners(layout, lengths)
    for group in layout.groups:
        for slots, segments in zip(group.slots, group.segments, strict=True):
            real = segments > 0
            row, numbers = owners[slots[real]], segments[real]
            assert (row >= 0).all()
            assert np.array_equal(row[:, None] == row, numbers[:, None] == numbers)
            for owner in set(row.tolist()):  # whole and in order
                positions = layout.position_ids[slots[real][row == owner]]
                assert positions.tolist() == list(range(lengths[owner]))
            if kind != "packed":
                assert len(set(row.tolist())) == 1
                assert set(numbers.tolist()) == {1}


@quick
@given(lengths_of)
def test_padded_has_a_row_for_each_sequence(lengths: list[int]) -> None:
    layout = lay_out(batch_of(lengths), "padded")
    (group,) = layout.groups
    assert group.slots.shape == (len(lengths), max(lengths))
    assert layout.slots == len(lengths) * max(lengths)
    assert group.one_segment_a_row
    assert (group.segments > 0).sum(1).tolist() == lengths


@quick
@given(lengths_of)
def test_unpadded_has_no_slot_too_many(lengths: list[int]) -> None:
    layout = lay_out(batch_of(lengths), "unpadded")
    assert layout.slots == sum(lengths)
    assert layout.token_slots.tolist() == list(range(sum(lengths)))
    assert all(group.one_segment_a_row for group in layout.groups)


@quick
@given(lengths_of, st.floats(0.0, 0.9), st.integers(1, 600))
def test_groups_by_length_waste_no_more_than_they_may(lengths: list[int], waste: float, most: int) -> None:
    groups = length_groups(np.array(lengths), waste, most)
    for group in groups:
        rows, width = group.slots.shape
        real = (group.segments > 0).sum(1)
        assert real.max() == width
        assert real.min() >= (1 - waste) * width - 1e-9
        assert rows == 1 or rows * width <= most
    assert sorted(n for group in groups for n in (group.segments > 0).sum(1)) == sorted(lengths)


@quick
@given(lengths_of, st.integers(0, 100))
def test_pack_holds_each_sequence_once_within_the_width(lengths: list[int], more: int) -> None:
    width = max(lengths) + more
    rows = pack(np.array(lengths), width)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    sums = [sum(lengths[index] for index in row) for row in rows]
    assert max(sums) <= width
    assert len(rows) == 1 or sorted(sums)[0] + sorted(sums)[1] > width  # or the two would have been one row


def test_pack_finds_the_best_fit() -> None:
    assert pack(np.array([6, 7, 3, 4, 5, 5]), 10) == [[1, 2], [0, 3], [4, 5]]
    assert pack(np.array([17, 14, 14, 2]), 30) == [[0], [1, 2, 3]]  # the first row that fits is not the tightest


def test_packed_by_hand() -> None:
    layout = lay_out(batch_of([2, 3, 4]), "packed", width=6)
    (group,) = layout.groups
    assert group.segments.tolist() == [[1, 1, 1, 1, 2, 2], [1, 1, 1, 0, 0, 0]]
    assert layout.input_ids.tolist() == [3000, 3001, 3002, 3003, 1000, 1001, 2000, 2001, 2002, 0, 0, 0]
    assert layout.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 0, 1, 2, 0, 0, 0]
    assert layout.token_slots.tolist() == [4, 5, 6, 7, 8, 0, 1, 2, 3]
    assert not group.one_segment_a_row


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_too_narrow_for_its_longest_sequence_is_refused(kind: LayoutKind) -> None:
    with pytest.raises(UserError, match="a row of 4 tokens cannot hold a sequence of 5"):
        lay_out(batch_of([3, 5]), kind, width=4)
    assert lay_out(batch_of([3, 5]), kind, width=5).slots >= 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_without_sequences_has_no_slots(kind: LayoutKind) -> None:
    layout = lay_out(batch_of([]), kind)
    assert layout.slots == 0
    assert layout.groups == ()
    assert len(layout.token_slots) == 0


@quick
@given(lengths_of, st.sampled_from([1, 2, 8, 32, 64]), st.sampled_from([8, 32]), st.sampled_from([1, 8, 16]))
def test_a_grain_adds_a_short_tail_that_stands_in_no_group(
    lengths: list[int], slots: int, share: int, width: int
) -> None:
    layout = lay_out(batch_of(lengths), "unpadded", grain=Grain(slots, share, width=width))
    tokens = sum(lengths)
    tail = layout.slots - tokens
    assert 0 <= tail < slots
    assert tail <= tokens / share
    assert tokens < share * slots or layout.slots % slots == 0
    assert layout.token_slots.tolist() == list(range(tokens))
    assert all(group.slots.max() < tokens for group in layout.groups)
    assert all(group.slots.shape[1] % width == 0 for group in layout.groups)
    assert sorted(np.concatenate([g.slots[g.segments > 0] for g in layout.groups])) == list(range(tokens))


@quick
@given(st.integers(1, 5000), st.sampled_from([16, 64, 256]), st.sampled_from([8, 32]))
def test_a_grain_has_a_least_step(tokens: int, slots: int, share: int) -> None:
    fine, coarse = (tokens + Grain(slots, share, least=least).tail(tokens) for least in (1, 16))
    assert coarse % 16 == 0
    assert tokens <= fine <= coarse < fine + 16


def test_few_shapes_are_left_of_many_batches() -> None:
    """200 batches of like size have 147 numbers of tokens, and 16 numbers of slots with the CPU's grain."""
    stream = np.random.default_rng(3)
    batches = [batch_of(stream.integers(30, 78, 32).tolist()) for _ in range(200)]
    fine, coarse = (
        {lay_out(batch, "unpadded", grain=grain).slots for batch in batches} for grain in (Grain(), Grain(32, width=16))
    )
    assert len(fine) == 147
    assert len(coarse) == 16
    assert max(coarse) <= max(fine) + 31
