"""fp16: the scale follows the overflows, an update that overflowed changes nothing, and too many end the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bertkit.conformance.fixtures import example_batch, gap, job, train, with_settings
from bertkit.engine.interface import LossScaling, OptimizerSpec
from bertkit.errors import UserError

torch = pytest.importorskip("torch")
from static_backend import StaticBackend  # noqa: E402

BATCH = example_batch("classification")
CHOICES = [OptimizerSpec(), OptimizerSpec(bias_correction=False), OptimizerSpec(algorithm="lamb")]


def engine(scaling: LossScaling, spec: OptimizerSpec = CHOICES[0]) -> Any:
    wanted = dataclasses.replace(job("classification", precision="fp16"), loss_scaling=scaling, optimizer=spec)
    return with_settings(StaticBackend(), wanted)


def steps(made: Any, count: int, first: int = 1) -> list[float]:
    return [float(made.scaler.factor) for n in range(count) if train(made, BATCH, "classification", 1, first=first + n)]


@pytest.mark.parametrize("spec", CHOICES, ids=["adamw", "no bias correction", "lamb"])
def test_an_overflow_leaves_the_update_out(spec: OptimizerSpec) -> None:
    made = engine(LossScaling(initial=2.0**100, patience=99), spec)
    before = made.state_dict()
    assert steps(made, 3) == [2.0**99, 2.0**98, 2.0**97]
    after = made.state_dict()
    kept = {name: array for name, array in before.items() if not name.startswith("loss_scaling.")}
    assert gap(kept, {name: after[name] for name in kept}) == 0.0
    assert float(after["adam.step"]) == float(before["adam.step"])
    assert float(after["loss_scaling.overflows"]) == 3


@pytest.mark.parametrize("spec", CHOICES, ids=["adamw", "no bias correction", "lamb"])
def test_the_scale_does_not_change_what_is_learnt(spec: OptimizerSpec) -> None:
    """A power of two moves the exponents alone, as long as nothing falls out of fp16's range."""
    small, large = (engine(LossScaling(initial=2.0**power, dynamic=False), spec) for power in (9, 12))
    losses = [train(made, BATCH, "classification", 6) for made in (small, large)]
    plain = with_settings(StaticBackend(), dataclasses.replace(job("classification"), optimizer=spec))
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
    assert losses[0] == pytest.approx(train(plain, BATCH, "classification", 6), abs=5e-3)  # fp16 has 11 bits
    assert losses[0][-1] < losses[0][0]


def test_it_grows_after_a_while_and_never_falls_below_the_floor() -> None:
    assert steps(engine(LossScaling(initial=64.0, grow_after=2)), 5) == [64.0, 128.0, 128.0, 256.0, 256.0]
    floored = engine(LossScaling(initial=1e30, floor=4e29, patience=99))
    assert steps(floored, 3) == pytest.approx([5e29, 4e29, 4e29])


def test_a_static_scale_stays() -> None:
    assert steps(engine(LossScaling(initial=1e30, dynamic=False, patience=99)), 2) == pytest.approx([1e30, 1e30])


def test_too_many_overflows_end_the_run_and_name_the_first_tensor() -> None:
    made = engine(LossScaling(initial=1e30, patience=3))
    train(made, BATCH, "classification", 2)
    made.synchronize()
    train(made, BATCH, "classification", 1, first=3)
    with pytest.raises(UserError, match=r"3 updates in a row overflowed.*classifier\.bias.*-d bf16"):
        made.synchronize()


def test_the_tensor_is_the_one_where_backward_first_overflowed() -> None:
    made = engine(LossScaling(patience=1))
    with torch.no_grad():
        made.parameters["bert.encoder.layer.1.intermediate.dense.weight"].mul_(1e9)
    train(made, BATCH, "classification", 1)
    with pytest.raises(UserError, match=r"classifier|pooler|layer\.1"):
        made.synchronize()


def test_a_resume_keeps_the_scale() -> None:
    straight, before, after = (engine(LossScaling(initial=2.0**40, grow_after=3)) for _ in range(3))
    train(straight, BATCH, "classification", 24)
    train(before, BATCH, "classification", 11)
    after.load_state_dict({name: np.array(array) for name, array in before.state_dict().items()})
    train(after, BATCH, "classification", 13, first=12)
    assert gap(straight.state_dict(), after.state_dict()) == 0.0
    assert float(straight.scaler.factor) < 2.0**40


def test_a_bf16_checkpoint_has_none() -> None:
    made = engine(LossScaling())
    arrays = {name: array for name, array in made.state_dict().items() if not name.startswith("loss_scaling.")}
    made.load_state_dict(arrays)
    assert float(made.scaler.factor) == 65536.0


def test_it_never_grows_to_infinity() -> None:
    """Gradients of zeros overflow at no scale."""
    made = engine(LossScaling(initial=2.0**22, grow_after=1))
    parts = torch.zeros(3)
    for _ in range(200):
        made.scaler._remember(torch.tensor(False), parts)
    assert float(made.scaler.factor) == 2.0**24
    larger = engine(LossScaling(initial=2.0**30, grow_after=1))
    larger.scaler._remember(torch.tensor(False), parts)
    assert float(larger.scaler.factor) == 2.0**30


@pytest.mark.parametrize(
    ("name", "value"),
    [("factor", np.inf), ("factor", np.nan), ("factor", 0.0), ("factor", -1.0), ("factor", 1e300), ("good", np.nan)],
)
def test_a_checkpoint_whose_scale_is_no_number_begins_it_anew(
    name: str, value: float, caplog: pytest.LogCaptureFixture
) -> None:
    made = engine(LossScaling(initial=1024.0))
    made.load_state_dict(made.state_dict() | {f"loss_scaling.{name}": np.array(value)})
    assert float(made.scaler.factor) == 1024.0
    assert float(made.scaler.good) == 0.0
    assert "restarts at 1024" in caplog.text
    assert np.isfinite(train(made, BATCH, "classification", 3)).all()
