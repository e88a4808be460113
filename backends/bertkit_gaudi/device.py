"""A Gaudi as a torch Device: eager with torch.compile, or lazy with mark_step and HPU graphs; autocast; HCCL."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from bertkit.plugin import DeviceFacts, Job, OptimizerSpec, Precision, UserError, World
from bertkit_gaudi.environment import LAZY, describe
from bertkit_gaudi.gaudi_config import GaudiConfig
from bertkit_gaudi.optimizers import fused_adamw, fused_lamb, is_exact
from bertkit_gaudi.weights import AutocastWeights, fused_sdpa
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.gradients import Gradients
from bertkit_torch.lamb import Lamb
from bertkit_torch.optimizer import Optimizer
from bertkit_torch.row_attention import InRows, plain, sdpa
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights

KERNELS = {"fused": fused_sdpa, "sdpa": sdpa, "plain": plain}


class GaudiDevice(Accelerator):
    type = "hpu"
    collectives = "hccl"

    def __init__(self, ours: Mapping[str, str], config: GaudiConfig) -> None:
        super().__init__()
        self.ours, self.config = ours, config

    def open(self, job: Job, world: World) -> torch.device:
        import habana_frameworks.torch as bridge
        import habana_frameworks.torch.core as core
        from habana_frameworks.torch.utils.internal import is_lazy

        self.core, self.lazy = core, bool(is_lazy())
        if self.lazy != (self.ours[LAZY] != "0"):
            raise UserError("torch was imported in the other mode before", f"set {LAZY} in the environment instead")
        if world.size > 1:
            from habana_frameworks.torch.distributed import hccl

            hccl.initialize_distributed_hpu(world_size=world.size, rank=world.rank, local_rank=world.local_rank)
        if not self.config.dynamic_shapes:
            self.module.disable_dynamic_shape()
        settings = job.settings
        self.chosen = str(settings.get("attention", "fused"))
        self.kernel = {"fused": "FusedSDPA", "sdpa": "scaled_dot_product_attention"}.get(self.chosen, "two products")
        self.exact = settings.get("optimizer", "auto")
        self.fp16 = job.precision == "fp16"
        where = super().open(job, world)
        self.compiled = self.static and not self.lazy and settings.get("compile", "auto") == "auto"
        self.captured = self.static and self.lazy and bool(settings.get("graphs", False))
        self._describe(job.optimizer, str(bridge.__version__) if hasattr(bridge, "__version__") else "unknown")
        return where

    def index(self, world: World) -> int:
        """A process has one card, number 0; HLS_MODULE_ID says which it is."""
        return 0

    # ---- precision: fp32 weights under autocast, whose lists say which operators compute in bf16 ----

    def compute_dtype(self, precision: Precision) -> torch.dtype:
        return torch.float32

    def peak_dtype(self, precision: Precision) -> torch.dtype:
        return super().compute_dtype(precision)

    def autocast(self, precision: Precision) -> AbstractContextManager[object]:
        dtype = torch.float16 if precision == "fp16" else torch.bfloat16
        return torch.autocast(self.type, dtype=dtype, enabled=precision in ("bf16", "fp16"))

    def compute_weights(self, masters: Mapping[str, Tensor], dtype: torch.dtype, *, training: bool) -> ComputeWeights:
        return AutocastWeights(masters, dtype)

    # ---- kernels ----

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        return InRows(allowed, heads, KERNELS[self.chosen])

    def compile(self, layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(layer, backend="hpu_backend", dynamic=False) if self.compiled else layer

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        if not self.captured:
            return run
        run()
        self.core.mark_step()
        self.synchronize()
        graph = self.module.HPUGraph()
        with self.module.graph(graph):
            run()
        replay: Callable[[], None] = graph.replay
        return replay

    def optimizer(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
        if self._takes_fused(spec):
            return fused_lamb(parameters, spec) if spec.algorithm == "lamb" else fused_adamw(parameters, spec)
        return Lamb(parameters, spec)  # without trust ratios it is AdamW

    def _takes_fused(self, spec: OptimizerSpec) -> bool:
        if self.fp16 or self.exact == "exact" or not self.config.fused_adam:
            return False
        return spec.algorithm == "lamb" or self.exact == "fused" or is_exact(spec)

    def clip(self, gradients: Gradients, most: float) -> Tensor:
        if most == 0 or not self.config.fused_clip_norm:
            return super().clip(gradients, most)
        from habana_frameworks.torch.hpex.normalization import FusedClipNorm

        norm: Tensor = FusedClipNorm(gradients.parameters, most).clip_norm(gradients.parameters)
        return norm

    # ---- the device ----

    def step_boundary(self) -> None:
        if self.lazy:
            self.core.mark_step()

    def programs(self) -> int | None:
        from habana_frameworks.torch.hpu.metrics import metric_global

        return int(dict(metric_global("graph_compilation").stats())["TotalNumber"])

    def facts(self) -> DeviceFacts:
        name = str(self.module.get_device_name())
        _, total = self.module.mem_get_info()
        return DeviceFacts("accelerator", name, int(total), self.notes.get("habana_frameworks"))

    def pin(self, host: Tensor) -> Tensor:
        return host  # the bridge copies by itself

    def _describe(self, spec: OptimizerSpec, version: str) -> None:
        fused = "FusedLamb, which clips by itself" if spec.algorithm == "lamb" else "FusedAdamW"
        self.notes |= {
            "card": str(self.module.get_device_name()),
            "habana_frameworks": version,
            "mode": "lazy" if self.lazy else "eager, layers compiled by hpu_backend" if self.compiled else "eager",
            "graphs": "one HPU graph for each batch size" if self.captured else "none",
            "optimizer": fused if self._takes_fused(spec) else "torch's multi-tensor operators",
            "environment": describe(os.environ, self.ours),
        }
        if self._takes_fused(spec) and spec.algorithm == "adamw" and not is_exact(spec):
            self.notes["epsilon"] = "added before the bias is corrected"
