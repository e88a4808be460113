"""Attention in rows, in stretches and in groups: the same numbers as sequence by sequence, gradients too.

Legend: A heads, D head size, H hidden (A * D), N slots, T tokens, R rows, S width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
from bertkit.engine.interface import BatchLimits  # noqa: E402
from bertkit.engine.layouts import lay_out  # noqa: E402
from bertkit.engine.static_shapes import shapes, static  # noqa: E402
from bertkit.model.config import Head  # noqa: E402
from bertkit_torch.attention import KEYS, InGroups, OneByOne, windows  # noqa: E402
from bertkit_torch.dropout import DeviceDropout, Dropout  # noqa: E402
from bertkit_torch.placement import place  # noqa: E402
from bertkit_torch.row_attention import InRows, InStretches, allowed, plain, sdpa, stretches_by_mask  # noqa: E402
from ragged import batch_of  # noqa: E402

HEADS, SIZE = 2, 4
HIDDEN = HEADS * SIZE
WAYS = ("rows sdpa", "rows plain", "stretches", "groups padded", "groups unpadded", "groups packed")


def one_by_one(tokens: Any, lengths: list[int]) -> Any:
    """(T, 3H) -> (T, H): softmax(q k / sqrt(D)) v of each sequence and head by itself."""
    found = []
    for part in torch.split(tokens, lengths):
        query, key, value = part.view(-1, 3, HEADS, SIZE).unbind(1)
        heads = [
            torch.softmax(query[:, head] @ key[:, head].T / SIZE**0.5, -1) @ value[:, head] for head in range(HEADS)
        ]
        found.append(torch.cat(heads, -1))
    return torch.cat(found)


def attend(way: str, tokens: Any, lengths: list[int], count: int) -> Any:
    """The same by one of the ways; slots without a token hold large numbers that must reach nobody."""
    batch = batch_of(lengths)
    kind, _, how = way.partition(" ")
    if kind == "singly":
        total = sum(lengths) + int(how)
        shown = windows([0, *np.cumsum(lengths).tolist()], total, tokens.dtype)
        slots, attention = np.arange(sum(lengths)), OneByOne(HEADS, shown, tokens.dtype)
    elif kind == "groups":
        layout = lay_out(batch, how)  # type: ignore[arg-type]
        placed = place(layout, batch, Head("span", 2), HEADS, torch.device("cpu"), torch.float64)
        slots, total = layout.token_slots, layout.slots
        attention = InGroups(placed.heads)  # type: ignore[assignment]
    else:
        limits = BatchLimits(len(lengths) + 1, max(lengths) + 2)
        sizes = shapes([limits], count, kind == "stretches").fit(np.array(lengths))
        assert sizes is not None
        made = static(batch, "classification", sizes)
        slots, total = made.token_slots, sizes.slots
        if kind == "stretches":
            bounds = torch.from_numpy(made.whole["bounds"]).int()
            attention = InStretches(bounds, sizes.longest, HEADS, stretches_by_mask)  # type: ignore[assignment]
        else:
            mask = allowed(torch.from_numpy(made.whole["segments"]), sizes.rows)
            kernel = {"sdpa": sdpa, "plain": plain}[how]
            attention = InRows(mask, HEADS, kernel)  # type: ignore[assignment]
    places = torch.from_numpy(slots)
    held = torch.full((total, 3 * HIDDEN), 50.0, dtype=tokens.dtype).index_copy(0, places, tokens)
    return attention((held,), Dropout(), 0.0, torch.float64)[places]


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 17), min_size=1, max_size=7), st.integers(1, 5), st.integers(0, 99))
def test_every_way_is_as_sequence_by_sequence(way: str, lengths: list[int], count: int, seed: int) -> None:
    stream = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    tokens = torch.randn(total, 3 * HIDDEN, dtype=torch.float64, generator=stream, requires_grad=True)
    weights = torch.randn(total, HIDDEN, dtype=torch.float64, generator=stream)
    found, wanted = attend(way, tokens, lengths, count), one_by_one(tokens, lengths)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    slopes = [torch.autograd.grad((values * weights).sum(), tokens)[0] for values in (found, wanted)]
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("spare", [0, 3, 31])
@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=7), st.integers(0, 99))
def test_sequence_after_sequence_is_as_each_by_itself(spare: int, lengths: list[int], seed: int) -> None:
    """Of the neighbours that a sequence is shown, and of slots without a token behind them, nothing comes through."""
    tokens = torch.randn(sum(lengths), 3 * HIDDEN, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = attend(f"singly {spare}", tokens, lengths, 1)
    torch.testing.assert_close(found, one_by_one(tokens, lengths), rtol=1e-9, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 70), min_size=1, max_size=9), st.integers(0, 40))
def test_windows_are_whole_vectors_where_there_is_room(lengths: list[int], spare: int) -> None:
    bounds = [0, *np.cumsum(lengths).tolist()]
    for one, start, length in zip(windows(bounds, bounds[-1] + spare, torch.float32), bounds, lengths, strict=False):
        assert (one.start, one.end) == (start, start + length)
        assert 0 <= one.first <= one.start < one.end <= one.last <= bounds[-1] + spare
        width = one.last - one.first
        assert width == min(-(-length // KEYS) * KEYS, bounds[-1] + spare)
        if one.mask is None:
            assert width == length
        else:
            assert one.mask.shape == (1, 1, length, width)
            assert (one.mask[0, 0, 0] == 0).nonzero()[:, 0].tolist() == list(
                range(start - one.first, start - one.first + length)
            )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", ["rows sdpa", "rows plain", "stretches", "singly 31"])
def test_half_precision_loses_no_more_than_it_must(way: str, dtype: Any) -> None:
    lengths = [3, 17, 9, 1, 12]
    tokens = torch.randn(sum(lengths), 3 * HIDDEN, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = attend(way, tokens, lengths, 3)
    assert found.dtype == dtype
    wanted = one_by_one(tokens.double(), lengths)
    assert float((found.double() - wanted).abs().max()) < 4 * torch.finfo(dtype).eps * float(wanted.abs().max())


def test_a_row_without_a_sequence_is_finite() -> None:
    """Its slots see one another; a softmax over nothing would be NaN, and with it every gradient."""
    segments = torch.tensor([1, 1, 2, 0, 0, 0, 0, 0])
    mask = allowed(segments, 2)
    assert mask.shape == (2, 1, 4, 4)
    assert mask[0, 0].int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask[1].all()
    held = torch.randn(8, 3 * HIDDEN, requires_grad=True)
    for kernel in (sdpa, plain):
        found = InRows(mask, HEADS, kernel)((held,), Dropout(), 0.0, torch.float32)
        (slope,) = torch.autograd.grad(found.sum(), held)
        assert torch.isfinite(found).all()
        assert torch.isfinite(slope).all()


@pytest.mark.parametrize("on", [False, True])
def test_kernels_drop_in_training_alone(on: bool) -> None:
    rates: list[float] = []

    def in_rows(query: Any, key: Any, value: Any, mask: Any, rate: float) -> Any:
        rates.append(rate)
        return plain(query, key, value, mask, rate)

    def in_stretches(query: Any, key: Any, value: Any, bounds: Any, longest: int, rate: float) -> Any:
        rates.append(rate)
        return stretches_by_mask(query, key, value, bounds, longest, rate)

    held = torch.ones(8, 3 * HIDDEN)
    drop = DeviceDropout(active=on)
    torch.manual_seed(3)
    rows = InRows(allowed(torch.ones(8), 1), HEADS, in_rows)((held,), drop, 0.5, torch.float32)
    one = InStretches(torch.tensor([0, 8, 8]), 8, HEADS, in_stretches)((held,), drop, 0.5, torch.float32)
    assert rates == ([0.5, 0.5] if on else [0.0, 0.0])
    for found in (rows, one):
        assert (float((found - 1).abs().max()) > 0.1) == on


def test_dropout_keeps_the_mean() -> None:
    held = torch.ones(64, 3 * HIDDEN)
    torch.manual_seed(4)
    attention = InRows(allowed(torch.ones(64), 1), HEADS, plain)
    found = torch.stack([attention((held,), DeviceDropout(), 0.1, torch.float32) for _ in range(20)])
    assert float(found.mean()) == pytest.approx(1.0, abs=0.01)
