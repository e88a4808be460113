"""Gradients in one buffer: how it is cut, what is summed when, and that nothing is lost on the way."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bertkit.conformance.fixtures import example_batch, gap, job, train
from bertkit.distributed import host_sums
from bertkit.distributed.host_sums import FlatType, from_bf16, to_bf16
from bertkit.distributed.world import World
from bertkit.engine.interface import Exchange
from bertkit_torch import ranks
from bertkit_torch.buckets import HostSum, Worker, cut
from bertkit_torch.device import Device
from bertkit_torch.engine import TorchEngine
from bertkit_torch.sums import ALONE, SHARED, adder


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(1, 120))
def test_buckets_cover_everything_once(sizes: list[int], most: int) -> None:
    buckets = cut(sizes, most)
    assert buckets[0].start == 0
    assert buckets[-1].stop == sum(sizes)
    for one, following in pairwise(buckets):
        assert one.stop == following.start
        assert one.stop - one.start >= most
    ends = np.cumsum(sizes)
    for bucket in buckets:
        inside = {n for n, end in enumerate(ends) if bucket.start < end <= bucket.stop}
        assert bucket.parts == inside


@pytest.mark.parametrize("into", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("chunk", [ALONE, SHARED])
def test_torch_adds_as_numpy_does(into: int, count: int, kind: str, chunk: int) -> None:
    def parts() -> list[np.ndarray]:
        made = [np.random.default_rng(seed).normal(size=ALONE + 77).astype(np.float32) for seed in range(count)]
        return made if kind == "fp32" else [to_bf16(part) for part in made]

    found, wanted = parts(), parts()
    out, expected = ([*some, np.empty_like(some[0])][min(into, count)] for some in (found, wanted))
    adder(chunk)(out, found)
    host_sums.add(expected, wanted)
    assert np.array_equal(out, expected)


class Twin:
    """Pretends that there is another rank with the same numbers; notes which stretches were summed."""

    def __init__(self) -> None:
        self.stretches: list[tuple[int, int]] = []

    def at(self, place: str) -> None:
        pass

    def close(self) -> None:
        pass

    def flat(self, count: int, dtype: FlatType, add: Any) -> Any:
        self.array = host_sums.empty(count, dtype)
        return self

    def sum_(self, start: int, stop: int) -> None:
        self.stretches.append((start, stop))
        stretch = self.array[start:stop]
        stretch[:] = stretch * 2 if stretch.dtype == np.float32 else to_bf16(from_bf16(stretch) * 2)


def made(gradients: Any, overlap: bool) -> tuple[Twin, list[torch.nn.Parameter], HostSum]:
    twin = Twin()
    torch.manual_seed(3)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), (2, 2, 2), (1,))]
    exchange = Exchange(gradients=gradients, overlap=overlap, bucket_bytes=24)
    joined: Any = twin
    return twin, parameters, HostSum(joined, World(1, 2, 1, 2), parameters, exchange)


@pytest.mark.parametrize("gradients", ["fp32", "bf16"])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("empty_last", [False, True])
def test_every_gradient_and_the_loss_arrive(gradients: str, overlap: bool, empty_last: bool) -> None:
    """Two updates of two micro-batches; in the second, or in both, one parameter takes no part."""
    twin, parameters, host = made(gradients, overlap)
    for scale in (1.0, 3.0):
        for micro in range(2):
            if empty_last and micro == 1:
                continue
            if micro == 1:
                host.arm()
            used = parameters if micro == 0 else parameters[:-1]
            (scale * sum((parameter**2).sum() for parameter in used)).backward()
        wanted = [2 * p.grad.clone() for p in parameters if p.grad is not None]
        loss = host.finish(torch.tensor(1.2345678) * scale)
        assert float(loss) == pytest.approx(2 * 1.2345678 * scale, abs=1e-6)  # bf16 does not round the loss
        for parameter, gradient in zip(parameters, wanted, strict=True):
            assert parameter.grad is not None
            assert parameter.grad.shape == parameter.shape
            tolerance = 0 if gradients == "fp32" else 2**-8
            torch.testing.assert_close(parameter.grad, gradient, rtol=tolerance, atol=0)
            parameter.grad = None
    host.close()
    updates = 2
    if overlap:
        assert len(twin.stretches) == len(host.buckets) * updates > 2 * updates
        assert twin.stretches[: len(host.buckets)] == [(b.start, b.stop) for b in host.buckets]
    else:
        assert twin.stretches == [(0, host.buckets[-1].stop)] * updates


def test_a_full_bucket_starts_before_the_end() -> None:
    _, parameters, host = made("fp32", True)
    host.arm()
    sum((parameter**2).sum() for parameter in parameters[2:]).backward()  # type: ignore[union-attr]
    assert len(host._started) == 1
    host.finish(torch.tensor(0.0))
    host.close()


def test_accumulation_starts_nothing() -> None:
    twin, parameters, host = made("fp32", True)
    sum((parameter**2).sum() for parameter in parameters).backward()  # type: ignore[union-attr]
    assert (host._started, twin.stretches) == ([], [])
    host.close()


def test_the_worker_hands_errors_on() -> None:
    worker = Worker()

    def fail() -> None:
        raise ConnectionError("gone")

    failed, fine = worker.submit(fail), worker.submit(lambda: None)
    with pytest.raises(ConnectionError, match="gone"):
        failed.result(10)
    assert fine.result(10) is None
    worker.close()


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("kind", ["classification", "pretraining"])
def test_overlap_changes_nothing_in_the_engine(monkeypatch: pytest.MonkeyPatch, kind: Any, splits: int) -> None:
    """Small buckets start while backward goes on; accumulated gradients are sent once, when they are whole."""
    twins: list[Twin] = []

    def pretend(*_: object) -> Twin:
        twins.append(Twin())
        return twins[-1]

    monkeypatch.setattr(ranks, "join", pretend)
    states = []
    for overlap in (False, True):
        exchange = Exchange(overlap=overlap, bucket_bytes=10_000)
        wanted = dataclasses.replace(job(kind, dropout=True), exchange=exchange)
        engine = TorchEngine(Device(), wanted, World(1, 2, 1, 2))
        losses = train(engine, example_batch(kind), kind, 3, splits)
        states.append((losses, engine.state_dict()))
        engine.close()
    assert states[0][0] == states[1][0]
    assert gap(states[0][1], states[1][1]) == 0
    assert len(twins[0].stretches) == 3
    assert len(twins[1].stretches) > 10 * 3
    assert len(set(twins[1].stretches)) * 3 == len(twins[1].stretches)
