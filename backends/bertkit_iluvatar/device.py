"""An Iluvatar GPU as a torch Device: torch's CUDA interface with what CoreX is known to have."""

from __future__ import annotations

import torch

from bertkit.plugin import Job, World
from bertkit_torch.gpu import Gpu


class IluvatarDevice(Gpu):
    type = "cuda"
    check = "check ixsmi and CUDA_VISIBLE_DEVICES"

    def open(self, job: Job, world: World) -> torch.device:
        self.collectives = str(job.settings.get("dist_backend", "nccl"))
        where = super().open(job, world)
        self.notes |= {
            "card": str(self.module.get_device_name(where)),
            "collectives of the devices": self.collectives,
        }
        return where
