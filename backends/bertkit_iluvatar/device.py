"""An Iluvatar card as a torch Device: torch's CUDA interface with what CoreX is known to have."""

from __future__ import annotations

import torch
from torch import Tensor

from bertkit.plugin import DeviceFacts, Job, UserError, World
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.row_attention import InRows, plain, sdpa
from bertkit_torch.seen import Attention


class IluvatarDevice(Accelerator):
    type = "cuda"
    collectives = "nccl"

    def open(self, job: Job, world: World) -> torch.device:
        if not torch.cuda.is_available():
            raise UserError("torch finds no device", "check ixsmi and CUDA_VISIBLE_DEVICES")
        self.collectives = str(job.settings.get("dist_backend", "nccl"))
        self.row_kernel = plain if job.settings.get("attention") == "plain" else sdpa
        self.kernel = "two products and a softmax" if self.row_kernel is plain else "scaled_dot_product_attention"
        where = super().open(job, world)
        torch.cuda.set_device(where)
        self.notes |= {"card": torch.cuda.get_device_name(where), "collectives of the cards": self.collectives}
        return where

    def facts(self) -> DeviceFacts:
        about = torch.cuda.get_device_properties(torch.cuda.current_device())
        return DeviceFacts("accelerator", about.name, int(about.total_memory))

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        return InRows(allowed, heads, self.row_kernel)
