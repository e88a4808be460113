"""A GPU as a torch Device: which attention kernel, compiled layers, CUDA graphs, NCCL."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bertkit.plugin import DeviceFacts, Job, Precision, World
from bertkit_cuda.cards import driver
from bertkit_cuda.energy import joules
from bertkit_cuda.kernels import FLAT, STRETCHES
from bertkit_cuda.trial import choose
from bertkit_torch.gpu import Gpu
from bertkit_torch.row_attention import InStretches
from bertkit_torch.seen import Attention


class CudaDevice(Gpu):
    type = "cuda"
    collectives = "nccl"
    graph = "CUDAGraph"
    check = "check nvidia-smi, CUDA_VISIBLE_DEVICES, and torch's CUDA build"

    def open(self, job: Job, world: World) -> torch.device:
        where = super().open(job, world)
        self._set_precision(job.precision)
        self.chosen = "plain"
        if self.static:
            self.chosen, why = choose(job, self.compute_dtype(job.precision), where)
            self.flat = self.chosen in FLAT
            self.kernel = f"{self.chosen} ({why})"
        self._describe(where)
        return where

    def _set_precision(self, precision: Precision) -> None:
        """fp32 means fp32: tf32's 10-bit mantissa only where it is asked for."""
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # sums must not leave fp16's range

    def has_compiler(self, where: torch.device) -> bool:
        """Triton needs compute capability 7.0."""
        return super().has_compiler(where) and torch.cuda.get_device_capability(where) >= (7, 0)

    def in_stretches(self, bounds: Tensor, longest: int, heads: int) -> Attention:
        return InStretches(bounds, longest, heads, STRETCHES[self.chosen])

    def energy(self) -> float | None:
        return joules(str(torch.cuda.get_device_properties(self.where).uuid))

    def facts(self) -> DeviceFacts:
        return dataclasses.replace(super().facts(), driver=driver() or None)

    def _describe(self, where: torch.device) -> None:
        about = torch.cuda.get_device_properties(where)
        self.notes |= {
            "gpu": f"{about.name}, {about.total_memory / 2**30:.0f} GiB, capability {about.major}.{about.minor}",
            "driver": driver() or "unknown",
            "toolkit": torch.version.cuda or torch.version.hip or "unknown",
        }
