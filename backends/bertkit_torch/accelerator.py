"""What torch's accelerators have in common: one device a process, reached through torch's module for its kind."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from bertkit.plugin import Job, World, own_device
from bertkit_torch.device import Device


class Accelerator(Device):
    """A vendor says its `type` and overrides what is different on its chip."""

    type = ""  # torch's name of the kind of device
    layout = "packed"
    static = True
    peak_size = 8192

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    @property
    def module(self) -> Any:
        """torch's module for this kind of device."""
        return torch.get_device_module(self.type)

    def open(self, job: Job, world: World) -> torch.device:
        self.lay_out(job)
        self.recompute = bool(job.settings.get("recompute", False))
        if self.recompute:
            self.notes["recompute"] = "each layer's inside is computed again in backward"
        self.where = torch.device(self.type, self.index(world))
        return self.where

    def lay_out(self, job: Job) -> None:
        """`padded` is the reference: shapes as they come, the plainest attention."""
        self.static = job.layout != "padded"
        self.flat = job.layout == "unpadded"

    def index(self, world: World) -> int:
        """Which of the devices that this process sees is its own."""
        count = int(self.module.device_count())
        return own_device(world.launcher, world.local_rank, world.local_size, count, os.environ)

    def seed(self, number: int) -> None:
        self.module.manual_seed(number)

    def pin(self, host: Tensor) -> Tensor:
        self.module.set_device(self.where)  # a thread begins on device 0, where this would make a context of its own
        return host.pin_memory()

    def synchronize(self) -> None:
        self.module.synchronize()

    def programs(self) -> int | None:
        """Those of torch.compile, in this process; a vendor with programs of its own adds them."""
        if type(self).compile is Device.compile:
            return None
        from torch._dynamo.utils import counters

        return int(counters["stats"]["unique_graphs"])

    def free(self) -> None:
        if hasattr(self.module, "empty_cache"):
            self.module.empty_cache()

    def peak_memory(self) -> int | None:
        return int(self.module.max_memory_allocated())

    def describe(self) -> dict[str, str]:
        return self.notes
