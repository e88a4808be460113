"""The sample chip: the backend. Nothing here imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bertkit.plugin import Capabilities, Engine, Job, Probe, Setting, World
from bertkit_torch.build import torch_build


class SampleChipBackend:
    name = "sample-chip"
    aliases: tuple[str, ...] = ()
    preference = -1  # never by itself; a real chip stands above the CPU's 10
    capabilities = Capabilities(
        precisions=("fp32", "bf16"),
        heads=("classification", "regression", "span", "pretraining"),
        layouts=("padded", "packed"),
        environment=("SAMPLE_CHIP",),
        gradients=("fp32", "bf16"),
        overlap=True,
        sharded_optimizer=True,
    )
    settings: Mapping[str, Setting] = {
        "tile": Setting(32, "keys that attention takes at a time"),
        "shapes": Setting(4, "sizes that batches are rounded up to"),
    }

    def probe(self) -> Probe:
        build = torch_build()
        if build is None:
            return Probe(False, "torch is not installed; pip install torch")
        if os.environ.get("SAMPLE_CHIP") == "absent":  # a real one looks for its device file
            return Probe(False, "no sample chip; check the variable SAMPLE_CHIP")
        return Probe(True, f"one sample chip, torch {build.version}", ("fp32", "bf16"), cards=(-1,))

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        from bertkit_sample_chip.device import SampleChipDevice
        from bertkit_torch.engine import TorchEngine

        return TorchEngine(SampleChipDevice(), job, world)
