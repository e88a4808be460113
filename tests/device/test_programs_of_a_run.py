"""Programs of a whole run, by `Trainer.fit`, whose batches are staged in a thread of their own.

Of 8 sizes, which are twice as many graphs as torch compiles by itself; BERTKIT_TEST_SIZES=8,32 takes a minute more.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

import bertkit
from bertkit.engine.interface import BatchLimits, Capabilities, Engine, Job, Setting
from bertkit.engine.registry import Choice
from bertkit.training import setup

torch = pytest.importorskip("torch")
from bertkit.distributed.world import World  # noqa: E402
from bertkit_torch.engine import TorchEngine  # noqa: E402
from bertkit_torch.static import StaticPasses  # noqa: E402
from static_backend import StaticBackend, StaticDevice  # noqa: E402


class CountedDevice(StaticDevice):
    """Its layers are compiled by Dynamo alone; graphs, and how often one is run, are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.graphs = self.runs = 0

    def compile(self, layer: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def backend(graph: torch.fx.GraphModule, inputs: Any) -> Callable[..., Any]:
            self.graphs += 1

            def run(*given: Any) -> Any:
                self.runs += 1
                return graph(*given)

            return run

        return torch.compile(layer, backend=backend, dynamic=False)


class CountedBackend(StaticBackend):
    name = "counted"
    settings: Mapping[str, Setting] = {"shapes": Setting(8, "sizes")}
    capabilities = Capabilities(("fp32",), ("classification",), ("padded", "packed", "unpadded"))
    engines: ClassVar[list[TorchEngine]] = []

    def engine(self, job: Job, world: World) -> Engine:
        made = TorchEngine(CountedDevice(), job, world)
        self.engines.append(made)
        return made


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[TorchEngine]:
    """The backend above is chosen; limits are told without drawn batches, so as many sizes as asked are planned."""
    monkeypatch.setattr(setup, "choose", lambda name, dry_run: Choice(CountedBackend(), "for this test"))
    for name in ("of_training", "of_answers"):
        real = getattr(setup, name)

        def bare(*given: Any, real: Callable[..., BatchLimits] = real) -> BatchLimits:
            return dataclasses.replace(real(*given), drawn=())

        monkeypatch.setattr(setup, name, bare)
    monkeypatch.setattr(CountedBackend, "engines", [])
    torch._dynamo.reset()
    return CountedBackend.engines


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [int(n) for n in os.environ.get("BERTKIT_TEST_SIZES", "8").split(",")])
def test_every_size_of_a_run_is_compiled_and_none_computed_without(
    engines: list[TorchEngine],
    tmp_path: Path,
    sizes: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0
    real = StaticPasses._allowed_layer

    def counted(self: StaticPasses, *given: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return real(self, *given)

    monkeypatch.setattr(StaticPasses, "_allowed_layer", counted)
    bertkit.get_data("sample", data_dir=tmp_path / "data", quiet=True)
    with caplog.at_level(logging.WARNING):
        bertkit.Trainer(
            model="tiny", task="sample", backend="counted", precision="fp32", data_dir=tmp_path / "data", seq_length=32,
            batch_size=32, output=tmp_path / "run", quiet=True,
            settings={
                "device.shapes": sizes, "train.steps": 4, "data.eval_rows": 4,
                "evaluation.batch_size": 1, "data.cache": "off",
            },
        ).fit()  # fmt: skip
    (engine,) = engines
    passes, device = engine.passes, engine.device
    assert isinstance(passes, StaticPasses)
    assert isinstance(device, CountedDevice)
    assert passes.plan.training is not None
    assert passes.plan.answering is not None
    assert len(passes.plan.training) == sizes
    assert passes.plan.late == 0
    assert device.graphs == 2 * (sizes + len(passes.plan.answering))  # the last layer is another graph
    assert device.runs == calls > 0
    assert "recompile" not in caplog.text
