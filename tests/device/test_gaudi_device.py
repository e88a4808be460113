"""What the Gaudi device chooses and tells, without its package: everything that needs no tensor on the card."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.distributed.world import World
from bertkit.engine.interface import OptimizerSpec

torch = pytest.importorskip("torch")
from bertkit_gaudi.device import GaudiDevice  # noqa: E402
from bertkit_gaudi.environment import LAZY  # noqa: E402
from bertkit_gaudi.gaudi_config import GaudiConfig  # noqa: E402


def device(fused_adam: bool = True, **state: Any) -> GaudiDevice:
    made = GaudiDevice({LAZY: "0"}, GaudiConfig(fused_adam=fused_adam))
    known = {"lazy": False, "compiled": False, "captured": False, "exact": "auto", "fp16": False} | state
    for name, value in known.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("local_rank", [0, 3, 7])
def test_the_card_of_a_process_is_number_0_whatever_its_rank(local_rank: int) -> None:
    """Any other raises "habana active device"; HLS_MODULE_ID says which card that is."""
    assert device().index(World(local_rank, 8, local_rank, 8)) == 0


def test_fused_optimizers_are_taken_where_they_compute_the_same() -> None:
    """FusedAdamW adds epsilon before it corrects the bias; neither can leave out an update, which fp16 needs."""
    for algorithm, corrected, asked, fp16, fused in itertools.product(
        ("adamw", "lamb"), (True, False), ("auto", "fused", "exact"), (True, False), (True, False)
    ):
        spec = OptimizerSpec(algorithm=algorithm, bias_correction=corrected)  # type: ignore[arg-type]
        taken = device(fused, exact=asked, fp16=fp16)._takes_fused(spec)
        same = algorithm == "lamb" or not corrected
        assert taken == (fused and not fp16 and asked != "exact" and (same or asked == "fused"))


def test_the_users_variables_are_told_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GaudiDevice, "module", SimpleNamespace(get_device_name=lambda: "GAUDI2"))
    monkeypatch.setenv("HABANA_LOGS", "/logs")
    monkeypatch.setenv("MULTI_HLS_IPS", "10.0.0.1,10.0.0.2")
    monkeypatch.setenv(LAZY, "0")
    made = device(compiled=True)
    made._describe(OptimizerSpec(algorithm="lamb"), "1.23.0")
    said = made.describe()
    assert said["card"] == "GAUDI2"
    assert said["mode"] == "eager, layers compiled by hpu_backend"
    assert said["optimizer"] == "FusedLamb, which clips by itself"
    for words in ("HABANA_LOGS=/logs", "MULTI_HLS_IPS=10.0.0.1,10.0.0.2", f"{LAZY}=0 (ours)"):
        assert words in said["environment"]


@pytest.mark.parametrize("lazy", [False, True])
def test_marks_are_set_in_lazy_mode_alone(lazy: bool) -> None:
    marks: list[int] = []
    made = device(lazy=lazy, core=SimpleNamespace(mark_step=lambda: marks.append(1)))
    made.step_boundary()
    assert len(marks) == lazy


def test_where_nothing_is_captured_the_pass_itself_is_run() -> None:
    run = lambda: None  # noqa: E731
    assert device(lazy=True).capture(run) is run


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_precision_is_autocasts_and_the_weights_stay_float32(precision: Any, dtype: Any) -> None:
    made = device()
    assert made.compute_dtype(precision) == torch.float32
    assert made.peak_dtype(precision) == dtype
    with made.autocast(precision):
        assert torch.is_autocast_enabled("hpu")
        assert torch.get_autocast_dtype("hpu") == dtype
    with made.autocast("fp32"):
        assert not torch.is_autocast_enabled("hpu")
