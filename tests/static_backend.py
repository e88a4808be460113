"""The way of an accelerator (fixed sizes, flat gradients, the device's own dropout) on CPU tensors, as a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from bertkit.distributed.world import World
from bertkit.engine.interface import Capabilities, Engine, Job, Precision, Probe, Setting
from bertkit_torch.capabilities import EXTRAS
from bertkit_torch.device import Device
from bertkit_torch.engine import TorchEngine


class StaticDevice(Device):
    def __init__(self, compiled: bool = False, recompute: bool = False, captured: bool = False) -> None:
        self.compiled, self.recompute, self.captured = compiled, recompute, captured
        self.boundaries = self.captures = self.replays = 0

    def open(self, job: Job, world: World) -> torch.device:
        self.static, self.flat = job.layout != "padded", job.layout == "unpadded"
        return super().open(job, world)

    def compile(self, layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(layer, backend="aot_eager", dynamic=False) if self.compiled else layer

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        if not self.captured:
            return run
        self.captures += 1
        run()  # as a real one does, before it records

        def replay() -> None:
            self.replays += 1
            run()

        return replay

    def programs(self) -> int | None:
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"]) if self.compiled else None

    def step_boundary(self) -> None:
        self.boundaries += 1


class StaticBackend:
    name = "static"
    aliases: tuple[str, ...] = ()
    preference = -1
    capabilities = Capabilities(
        precisions=("fp32", "bf16", "fp16"),
        heads=("classification", "regression", "span", "pretraining"),
        layouts=("padded", "unpadded", "packed"),
        extras=EXTRAS,
    )
    settings: Mapping[str, Setting] = {"shapes": Setting(4, "sizes")}

    def __init__(self, **device: bool) -> None:
        self.device = device
        self.made: list[TorchEngine] = []

    def probe(self) -> Probe:
        precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16")
        return Probe(True, "CPU tensors", precisions)

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        self.made.append(TorchEngine(StaticDevice(**self.device), job, world))
        return self.made[-1]
