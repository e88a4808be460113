"""What an update and a measurement give a device to do, counted operator by operator."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bertkit.engine.interface import OptimizerSpec
from conftest import ROOT

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bertkit_torch import device as devices  # noqa: E402
from bertkit_torch.optimizer import FAR, AdamW  # noqa: E402
from operators import Operators  # noqa: E402


def optimizer(tensors: int, bias_correction: bool) -> AdamW:
    parameters = {f"layer.{number}.weight": nn.Parameter(torch.ones(3, 2)) for number in range(tensors)}
    for parameter in parameters.values():
        parameter.grad = torch.full((3, 2), 0.5)
    return AdamW(parameters, OptimizerSpec(bias_correction=bias_correction))


@pytest.mark.parametrize("bias_correction", [True, False])
def test_an_update_starts_as_much_for_many_tensors_as_for_few(bias_correction: bool) -> None:
    """Setting each tensor's step number back was one launch a tensor: 391 of a BERT-large."""
    counted = []
    for tensors in (2, 40):
        made = optimizer(tensors, bias_correction)
        with Operators() as seen:
            made.step(1e-3)
        counted.append(seen.counts)
    assert counted[0] == counted[1]
    assert "fill_" not in counted[0]


def test_the_step_number_without_bias_correction_stays_what_it_is() -> None:
    """Whether an update is taken or left out: float32 has no number so near to it."""
    made = optimizer(3, bias_correction=False)
    for left_out in (None, torch.tensor(1.0), torch.tensor(0.0), None):
        made.step(1e-3, left_out)
        assert {float(step) for step in made.steps.values()} == {FAR}
    made.load_state_dict(made.state_dict() | {"adam.step": torch.tensor(7.0).numpy()})  # of one with correction
    assert float(made.state_dict()["adam.step"]) == FAR


def test_the_peak_rate_is_of_random_numbers_several_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that its power limits multiplies ones faster: 894 TFLOP/s of zeros, 788 of random numbers."""
    monkeypatch.setattr(devices, "PEAK_SECONDS", 0.05)
    monkeypatch.setattr(devices, "PEAK_SIZE", 64)
    made = devices.Device()
    made.peak_size = 128
    with Operators() as seen:
        found = made.peak("fp32", torch.device("cpu"))
    assert found.flops > 0
    assert len(seen.products) > 4
    for left, right in seen.products:
        assert 0.9 < float(left.std()) < 1.1
        assert not torch.equal(left, right)


PROGRAM = """
import sys
sys.path[:0] = {path!r}
import torch
from bertkit.engine.interface import OptimizerSpec
from bertkit_torch.optimizer import AdamW
weight = torch.nn.Parameter(torch.ones(3, 2))
weight.grad = torch.ones(3, 2)
AdamW({{"weight": weight}}, OptimizerSpec()).step(1e-3)
assert float(weight[0, 0]) < 1
sys.exit("torch._dynamo" in sys.modules)
"""


def test_an_update_does_not_load_torchs_compiler() -> None:
    """Making torch's own optimizer does: a second of every process, and of each rank."""
    program = PROGRAM.format(path=[str(ROOT), str(ROOT / "backends")])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
