"""A GPU as a torch Device: which attention kernel, compiled layers, CUDA graphs, NCCL."""

from __future__ import annotations

from collections.abc import Callable
from importlib import util

import torch
from torch import Tensor

from bertkit.plugin import DeviceFacts, Job, Precision, UserError, World
from bertkit_cuda.cards import driver
from bertkit_cuda.energy import joules
from bertkit_cuda.kernels import FLAT, STRETCHES
from bertkit_cuda.trial import ROWS, choose
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.row_attention import InRows, InStretches
from bertkit_torch.seen import Attention

WARM = 3  # runs before a recording: compilers and libraries settle in them


class CudaDevice(Accelerator):
    type = "cuda"
    collectives = "nccl"
    graphs = 0  # captured so far

    def open(self, job: Job, world: World) -> torch.device:
        if not torch.cuda.is_available():
            raise UserError("torch finds no GPU", "check nvidia-smi, CUDA_VISIBLE_DEVICES, and torch's CUDA build")
        where = super().open(job, world)
        torch.cuda.set_device(where)
        self.where = where
        self._set_precision(job.precision)
        self.compiled = self.static and job.settings.get("compile", "auto") == "auto" and has_compiler(where)
        self.captured = self.static and job.settings.get("graphs", "auto") == "auto" and not self.recompute
        self.pool = torch.cuda.graph_pool_handle() if self.captured else None
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

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        return InRows(allowed, heads, ROWS[self.chosen])

    def in_stretches(self, bounds: Tensor, longest: int, heads: int) -> Attention:
        return InStretches(bounds, longest, heads, STRETCHES[self.chosen])

    def compile(self, layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(layer, dynamic=False) if self.compiled else layer

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """One CUDA graph; all of them share one pool of memory, since they are replayed one after another."""
        if not self.captured:
            return run
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM):
                run()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        self.graphs += 1
        with torch.cuda.graph(graph, pool=self.pool):
            run()
        replay: Callable[[], None] = graph.replay
        return replay

    def programs(self) -> int | None:
        return (super().programs() or 0) + self.graphs

    def pin(self, host: Tensor) -> Tensor:
        torch.cuda.set_device(self.where)  # a thread begins on card 0, where this would make a context of this process
        return super().pin(host)

    def energy(self) -> float | None:
        return joules(str(torch.cuda.get_device_properties(self.where).uuid))

    def facts(self) -> DeviceFacts:
        about = torch.cuda.get_device_properties(self.where)
        return DeviceFacts("accelerator", about.name, int(about.total_memory), driver() or None)

    def _describe(self, where: torch.device) -> None:
        about = torch.cuda.get_device_properties(where)
        self.notes |= {
            "gpu": f"{about.name}, {about.total_memory / 2**30:.0f} GiB, capability {about.major}.{about.minor}",
            "driver": driver() or "unknown",
            "toolkit": torch.version.cuda or torch.version.hip or "unknown",
            "layers": "compiled by torch.compile" if self.compiled else "as they are",
            "graphs": "one CUDA graph for each batch size" if self.captured else "none",
        }


def has_compiler(where: torch.device) -> bool:
    """torch.compile makes its kernels with Triton, which needs compute capability 7.0."""
    return util.find_spec("triton") is not None and torch.cuda.get_device_capability(where) >= (7, 0)
