"""An Intel GPU as a torch Device: torch.xpu's streams and graphs, Triton's compiler, oneCCL.

SYCL-TLA's flash attention, torch's from 2.11 on, trains without dropout and without a mask, which BERT has both, so two
plain products are the default.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.distributed

from bertkit.plugin import DeviceFacts, Job, UserError, World
from bertkit_torch.gpu import Gpu


class XpuDevice(Gpu):
    type = "xpu"
    collectives = "xccl"
    graph = "XPUGraph"
    check = "check sycl-ls, ZE_AFFINITY_MASK, and torch's XPU build"

    def open(self, job: Job, world: World) -> torch.device:
        if world.size > 1 and not torch.distributed.is_backend_available(self.collectives):
            raise UserError(
                f"this build of torch, {torch.__version__}, has no xccl, with which Intel GPUs sum gradients",
                "install an XPU build of torch 2.8 or newer, or start one process",
            )
        where = super().open(job, world)
        about = self.module.get_device_properties(where)
        self.notes |= {
            "gpu": f"{about.name}, {about.total_memory / 2**30:.0f} GiB",
            "driver": str(about.driver_version),
            "toolkit": str(torch.version.xpu or "unknown"),
        }
        return where

    def facts(self) -> DeviceFacts:
        return dataclasses.replace(super().facts(), driver=self.notes["driver"])
