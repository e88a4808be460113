"""Whatever torch.accelerator finds as a torch Device, by operators that every device of torch has.

Reference speed: nothing is compiled or captured, attention is two products, and the optimizer is torch's multi-tensor
operators, since a fused one is not there on every device.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed
from torch import Tensor, nn

from bertkit.plugin import DeviceFacts, Job, OptimizerSpec, UserError, World
from bertkit_accelerator import SPEED
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.lamb import Lamb
from bertkit_torch.optimizer import Optimizer
from bertkit_torch.row_attention import ROWS, InRows
from bertkit_torch.seen import Attention


class AcceleratorDevice(Accelerator):
    kernel = "two products and a softmax"

    def open(self, job: Job, world: World) -> torch.device:
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if found is None:
            raise UserError("torch finds no accelerator", "install the vendor's plug-in for torch; check its driver")
        asked = str(job.settings.get("type", "auto"))
        if asked not in ("auto", found.type):
            raise UserError(f"device.type={asked}, but torch finds {found.type}", "set device.type=auto")
        self.type = found.type
        self.collectives = torch.distributed.get_default_backend_for_device(found.type) if world.size > 1 else ""
        self.row_kernel = ROWS[str(job.settings.get("attention", "plain"))]
        if self.row_kernel is ROWS["sdpa"]:
            self.kernel = Accelerator.kernel
        where = super().open(job, world)
        torch.accelerator.set_device_index(where.index or 0)
        self.notes |= {"card": self._name(), "speed": f"{SPEED}: nothing is compiled, captured or fused"}
        return where

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        return InRows(allowed, heads, self.row_kernel)

    def optimizer(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
        return Lamb(parameters, spec)  # without trust ratios it is AdamW

    def pin(self, host: Tensor) -> Tensor:
        torch.accelerator.set_device_index(self.where.index or 0)  # a thread begins on device 0
        return host.pin_memory()

    def synchronize(self) -> None:
        torch.accelerator.synchronize()

    def peak_memory(self) -> int | None:
        """Not every module tells."""
        return int(self.module.max_memory_allocated()) if hasattr(self.module, "max_memory_allocated") else None

    def facts(self) -> DeviceFacts:
        return DeviceFacts("accelerator", self._name())

    def _name(self) -> str:
        return str(self.module.get_device_name()) if hasattr(self.module, "get_device_name") else self.type
