"""The accelerators' way through the torch engine, on CPU tensors: the contract, and equality with the ragged way."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from bertkit.conformance import CHECKS, Skip
from bertkit.conformance.fixtures import HEADS, RATE, example_batch, first_moments, gap, job, part, train, with_settings
from bertkit.distributed.world import World
from bertkit.engine.interface import BatchLimits, Limits, Update, label_counts
from bertkit.errors import DoesNotFit, out_of_memory
from bertkit.model.config import HeadKind
from bertkit_cpu import CpuBackend

torch = pytest.importorskip("torch")
from bertkit_torch.accelerator import Accelerator  # noqa: E402
from bertkit_torch.engine import TorchEngine  # noqa: E402
from bertkit_torch.seen import Attention  # noqa: E402
from static_backend import StaticBackend, StaticDevice  # noqa: E402

WAYS: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "rows": ("packed", {}),
    "stretches": ("unpadded", {}),
    "compiled": ("packed", {"compiled": True}),
    "recomputed": ("packed", {"recompute": True}),
    "captured": ("unpadded", {"captured": True}),
}


def slow_where(values: Any, slow: bool) -> Any:
    """A case, or one that only the slow tests run: compiling takes its time."""
    given = values if isinstance(values, tuple) else (values,)
    return pytest.param(*given, marks=[pytest.mark.slow] if slow else [], id="-".join(given))


LIMITS = Limits((BatchLimits(12, 40, masked=48),), (BatchLimits(12, 40, masked=48),))


@pytest.mark.parametrize("check", [slow_where(name, name == "static_shapes") for name in CHECKS])
def test_the_contract(check: str) -> None:
    """Compiled where programs are counted."""
    try:
        CHECKS[check](StaticBackend(compiled=check == "static_shapes"))
    except Skip:
        if check not in ("host_waits", "memory"):  # its device is the host
            raise


def test_an_accelerator_that_compiles_nothing_counts_no_programs() -> None:
    """0 would read as a count that is broken: `bertkit check` would fail a vendor that overrides no `compile`."""

    class Compiles(Accelerator):
        def compile(self, layer: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
            return torch.compile(layer)

    assert Accelerator().programs() is None
    assert isinstance(Compiles().programs(), int)


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        slow_where((way, kind), way == "compiled" or (way != "rows" and kind in ("tokens", "encoder")))
        for way in WAYS
        for kind in HEADS
        if way in ("rows", "stretches")
        or kind not in ("multilabel", "regression", "choice")  # the head is not compiled
    ],
)
def test_logits_and_gradients_are_those_of_the_ragged_way(way: str, kind: HeadKind) -> None:
    batch = example_batch(kind)
    layout, device = WAYS[way]
    ragged = with_settings(CpuBackend(), job(kind))
    rows = with_settings(StaticBackend(**device), dataclasses.replace(job(kind, layout), limits=LIMITS))
    assert gap(ragged.predict(batch), rows.predict(batch)) < 1e-5
    if not HEADS[kind].trained:
        return
    losses = [train(engine, batch, kind, 1) for engine in (ragged, rows)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    assert gap(first_moments(ragged), first_moments(rows)) < 2e-6


def test_each_size_is_captured_once_and_leaves_no_gradient_behind() -> None:
    """Sizes that come unforeseen are captured in the middle of an update, whose gradients must stay."""
    batch = example_batch("classification")
    backend, plain = StaticBackend(captured=True), StaticBackend()
    engines = [with_settings(b, job("classification", dropout=True)) for b in (backend, plain)]
    losses = [train(engine, batch, "classification", 3, splits=3) for engine in engines]
    assert losses[0] == losses[1]
    assert gap(engines[0].state_dict(), engines[1].state_dict()) == 0.0
    device = backend.made[0].device
    assert device.replays == 9
    assert device.captures == len(backend.made[0].passes.programs)


@pytest.mark.slow
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
    assert not [
        record for record in caplog.records if record.name.startswith("bertkit") and record.levelno >= logging.WARNING
    ]
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
    for recompute in (False, True):
        engine = with_settings(StaticBackend(recompute=recompute), job("classification", dropout=True))
        losses.append(train(engine, example_batch("classification"), "classification", 4))
    assert losses[0] == losses[1]


def test_a_lazy_device_is_told_after_each_backward_and_after_the_update() -> None:
    backend = StaticBackend()
    train(with_settings(backend, job("classification")), example_batch("classification"), "classification", 3, splits=4)
    (engine,) = backend.made
    assert engine.device.boundaries == 3 * (4 + 1)


class SmallDevice(StaticDevice):
    """Attention over more rows than `most` does not fit into its memory."""

    most, freed = 3, 0

    def in_rows(self, allowed: torch.Tensor, heads: int) -> Attention:
        if len(allowed) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has a total of 3 GiB")
        return super().in_rows(allowed, heads)

    def free(self) -> None:
        self.freed += 1


def small_engine(limits: Limits | None, **settings: Any) -> tuple[TorchEngine, SmallDevice]:
    device = SmallDevice()
    known = {"shapes": 4, **settings}
    wanted = dataclasses.replace(job("classification", "packed"), limits=limits, settings=known)
    return TorchEngine(device, wanted, World()), device


@pytest.mark.parametrize(
    ("most", "said", "cure"),
    [
        (3, "the largest planned size that fits is 3 x 40", "train.micro_batch_size to 3 or less"),
        (9, "the largest planned size that fits is 9 x 40", "train.micro_batch_size to 9 or less"),
        (0, "no smaller size is known to fit", "train.micro_batch_size to 11 or less"),
    ],
)
def test_a_warm_up_out_of_memory_says_what_fits_and_what_to_lower(most: int, said: str, cure: str) -> None:
    engine, device = small_engine(LIMITS, recompute=False)
    device.most = most
    batch = example_batch("classification")
    with pytest.raises(DoesNotFit) as caught:
        train(engine, batch, "classification", 1)
    assert caught.value.cause.startswith(
        "out of memory: a batch of 12 x 40 (12 sequences, 48 masked) does not fit (CUDA"
    )
    assert "GPU 0" not in caught.value.cause
    assert said in caught.value.cause
    assert cure in caught.value.cure
    assert "device.recompute=true" in caught.value.cure
    assert device.freed > 0
    assert out_of_memory(caught.value)  # what measures or searches goes on with the next case


def test_answers_out_of_memory_name_their_own_setting() -> None:
    engine, _ = small_engine(LIMITS)
    with pytest.raises(DoesNotFit) as caught:
        engine.predict(example_batch("classification"))
    assert "evaluation.batch_size to 3 or less" in caught.value.cure
    assert "recompute" not in caught.value.cure


def test_an_update_out_of_memory_says_what_has_fitted_so_far() -> None:
    """Without limits there is no warm-up, and memory may be short at any time."""
    engine, _ = small_engine(None)
    whole = example_batch("classification")
    train(engine, part(whole, np.arange(2)), "classification", 1)
    with pytest.raises(DoesNotFit, match=r"largest planned size that fits is 2 x \d+"):
        train(engine, whole, "classification", 1)
    engine.device.in_rows = broken  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match="another fault"):
        train(engine, part(whole, np.arange(5)), "classification", 1)


def broken(allowed: torch.Tensor, heads: int) -> Attention:
    raise RuntimeError("another fault")


def test_the_moments_are_there_before_the_sizes_are_tried() -> None:
    """They take as much memory as the model twice, beside which every size must fit."""
    engine, device = small_engine(LIMITS)
    device.most, tried = 12, []
    real = device.in_rows
    device.in_rows = lambda allowed, heads: (tried.append("optimizer" in vars(engine)), real(allowed, heads))[1]  # type: ignore
    train(engine, example_batch("classification"), "classification", 1)
    assert all(tried)
    assert len(tried) > 0


def test_the_largest_size_is_the_first_to_be_tried() -> None:
    engine, device = small_engine(LIMITS)
    device.most, rows = 12, []
    real = device.in_rows
    device.in_rows = lambda allowed, heads: (rows.append(len(allowed)), real(allowed, heads))[1]  # type: ignore
    train(engine, example_batch("classification"), "classification", 1)
    assert list(dict.fromkeys(rows))[:4] == [12, 9, 6, 3]
