"""The accelerators' way through the torch engine, on CPU tensors: the contract, and equality with the ragged way."""

from __future__ import annotations

import dataclasses
import logging

import numpy as np
import pytest

from bertkit.backend import Limits, Update, label_counts
from bertkit.checks import CHECKS
from bertkit.specimens import HEADS, RATE, example_batch, first_moments, gap, job, part, train, with_settings
from bertkit_cpu import CpuBackend

torch = pytest.importorskip("torch")
from static_backend import StaticBackend  # noqa: E402

WAYS = {
    "rows": {},
    "stretches": {"flat": True},
    "compiled": {"compiled": True},
    "recomputed": {"recompute": True},
}
LIMITS = Limits(sequences=12, longest=40, answers=12, masked=48)


@pytest.mark.parametrize("way", ["rows", "stretches"])
@pytest.mark.parametrize("check", [name for name in CHECKS if name != "layouts"])
def test_the_contract(check: str, way: str) -> None:
    CHECKS[check](StaticBackend(**WAYS[way]))


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("way", WAYS)
def test_logits_and_gradients_are_those_of_the_ragged_way(way: str, kind: str) -> None:
    batch = example_batch(kind)  # type: ignore[arg-type]
    wanted = job(kind)  # type: ignore[arg-type]
    ragged = with_settings(CpuBackend(), wanted)
    rows = with_settings(StaticBackend(**WAYS[way]), dataclasses.replace(wanted, limits=LIMITS))
    assert gap(ragged.predict(batch), rows.predict(batch)) < 1e-5
    losses = [train(engine, batch, kind, 1) for engine in (ragged, rows)]  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert gap(first_moments(ragged), first_moments(rows)) < 2e-6


def test_nothing_is_compiled_after_the_warm_up(caplog: pytest.LogCaptureFixture) -> None:
    """Any batch within the limits has one of the planned sizes; the compiler is called for none of them again."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    backend = StaticBackend(compiled=True)
    engine = with_settings(backend, dataclasses.replace(job("classification", dropout=True), limits=LIMITS))
    train(engine, example_batch("classification"), "classification", 1)
    engine.predict(example_batch("classification"))
    warm = counters["stats"]["unique_graphs"]
    assert warm > 0
    with caplog.at_level(logging.WARNING):
        for seed in range(8):
            whole = example_batch("classification", 12, seed)
            some = part(whole, np.arange(12 - seed))
            engine.train_step(Update(seed + 2, (some,), label_counts("classification", [some])), RATE)
            engine.predict(some)
    assert counters["stats"]["unique_graphs"] == warm
    assert not [record for record in caplog.records if record.name.startswith("bertkit")]
    larger = example_batch("classification", 13)
    with caplog.at_level(logging.WARNING):
        train(engine, larger, "classification", 1)
    assert "a batch of new sizes" in caplog.text
    assert "number 1 since the warm-up" in caplog.text
    assert "1 unforeseen" in engine.describe()["layout"]


def test_an_update_staged_ahead_is_the_same(caplog: pytest.LogCaptureFixture) -> None:
    batch = example_batch("span")
    update = Update(1, (batch,), label_counts("span", [batch]))
    at_once, ahead = (with_settings(StaticBackend(), job("span", dropout=True)) for _ in range(2))
    at_once.train_step(update, RATE)
    ahead.train_step(ahead.stage(update), RATE)
    assert gap(at_once.state_dict(), ahead.state_dict()) == 0.0


def test_recomputing_draws_the_same_dropout() -> None:
    losses = []
    for way in ({}, {"recompute": True}):
        engine = with_settings(StaticBackend(**way), job("classification", dropout=True))
        losses.append(train(engine, example_batch("classification"), "classification", 4))
    assert losses[0] == losses[1]


def test_a_lazy_device_is_told_after_each_backward_and_after_the_update() -> None:
    backend = StaticBackend()
    train(with_settings(backend, job("classification")), example_batch("classification"), "classification", 3, splits=4)
    (engine,) = backend.made
    assert engine.device.boundaries == 3 * (4 + 1)
