"""The CPU as a torch Device: threads from the cpuset and cgroup, padding-free batches, fast dropout masks."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import (
    INT8_WEIGHTS,
    Batch,
    DeviceFacts,
    Grain,
    Int8Calibration,
    Job,
    OptimizerSpec,
    Precision,
    UserError,
    World,
    process_peak_memory,
)
from bertkit_cpu.dense import Float32Weights, InferenceWeights, TrainingWeights, fast_products
from bertkit_cpu.extension import load_extension
from bertkit_cpu.int8 import Int8Weights, int8_works, largest_weight
from bertkit_cpu.int8_short import onednn_from
from bertkit_cpu.int8_static import StaticInt8Weights, static_int8_works
from bertkit_cpu.lamb import BlockedLamb
from bertkit_cpu.layer_norm import Bf16Training
from bertkit_cpu.masked_words import in_place
from bertkit_cpu.memory import keep_freed_memory
from bertkit_cpu.norms import norm
from bertkit_cpu.ranges import calibrate
from bertkit_cpu.topology import idle_under_torchrun, is_bound, native_bf16, read_cpu, threads, uses_amx
from bertkit_cpu.words import LANES, Masks
from bertkit_torch.device import Device, Run
from bertkit_torch.dropout import Mask
from bertkit_torch.gradients import Gradients
from bertkit_torch.optimizer import Optimizer
from bertkit_torch.placement import SHORT
from bertkit_torch.weights import ComputeWeights

logger = logging.getLogger(__name__)
GRAIN = Grain(slots=32, width=16, waste=0.05)


def coarse_grain(amx: bool, alone: int) -> Grain:
    """In bf16 and int8. oneDNN compiles every product anew for each number of slots and keeps about 1,000 of them, half
    a megabyte each: few numbers cost less memory and fewer compilations. AMX takes 16 rows in the time of one."""
    if amx:
        return dataclasses.replace(GRAIN, slots=64, share=8, least=16, alone=alone)
    return dataclasses.replace(GRAIN, slots=64, share=16, least=4, alone=alone)


class CpuDevice(Device):
    layout = "unpadded"
    grain = GRAIN
    inference_grain = dataclasses.replace(GRAIN, slots=64, share=16)

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}
        self.fast = fast_products(torch.bfloat16)
        self.rest = torch.bfloat16  # in int8, of what is not
        self.largest = INT8_WEIGHTS[8]  # of a weight in int8
        self.amx = False
        self.int8 = self.static_scales = False
        self.onednn_from = SHORT + 1  # slots of one sequence in int8
        self.scales: Mapping[str, np.ndarray] = {}  # of what enters dense layers in int8
        self.pool: Executor | None = None  # draws dropout's words beside the main thread

    def open(self, job: Job, world: World) -> torch.device:
        cpu = read_cpu()
        asked = int(job.settings.get("threads", 0))
        bound = is_bound(cpu)
        self.amx, limit = uses_amx(cpu, os.environ)
        count, reason = threads(cpu, world.local_size, asked, env=os.environ, bound=bound)
        if world.is_first and not asked and (idle := idle_under_torchrun(cpu, world.local_size, bound, os.environ)):
            logger.warning(idle)
        torch.set_num_threads(count)
        memory = keep_freed_memory()
        if count > 1:
            self.pool = ThreadPoolExecutor(min(count, LANES), "bertkit-masks")
        self.int8 = job.precision == "int8"
        self.notes = {"cpu": cpu.model, "threads": f"{count}: {reason}", "memory": memory}
        if limit:
            self.notes["amx"] = f"not used: {limit}"
        if self.int8:
            self._open_int8(job, self.fast and native_bf16(cpu)[0])
        if self.int8 or self.compute_dtype(job.precision) == torch.bfloat16:
            self.inference_grain = coarse_grain(self.amx, self.onednn_from if self.int8 else 1)
        if job.settings.get("extension", "auto") == "auto":
            self.notes["extension"] = load_extension()
        return torch.device("cpu")

    def _open_int8(self, job: Job, bf16: bool) -> None:
        self.rest = torch.bfloat16 if bf16 else torch.float32
        largest = largest_weight()
        if largest is None or not int8_works(self.rest):
            raise UserError("torch has no int8 products for this CPU", "use -d bf16 or fp32")
        self.largest = largest
        self.static_scales = job.settings.get("scales", "static") == "static" and static_int8_works()
        self.scales = job.scales if self.static_scales else {}
        if self.amx:
            self.onednn_from = onednn_from(job.model.hidden_size)

    def compute_dtype(self, precision: Precision) -> torch.dtype:
        return self.rest if precision == "int8" else super().compute_dtype(precision)

    def compute_weights(self, masters: Mapping[str, Tensor], dtype: torch.dtype, *, training: bool) -> ComputeWeights:
        if training and dtype == torch.bfloat16:
            return TrainingWeights(masters, dtype) if self.fast else Bf16Training(masters, dtype)
        if training:
            return ComputeWeights(masters, dtype)
        if self.int8 and self.scales:
            return StaticInt8Weights(masters, dtype, self.scales, self.largest, onednn_from=self.onednn_from)
        if self.int8:
            return Int8Weights(masters, dtype, self.largest)
        if dtype == torch.bfloat16 and self.fast:
            return InferenceWeights(masters, dtype)
        if dtype == torch.float32 and fast_products(dtype):
            return Float32Weights(masters)
        return ComputeWeights(masters, dtype)

    def wants_calibration(self) -> bool:
        return self.int8 and self.static_scales and not self.scales

    def calibrate(self, masters: Mapping[str, Tensor], run: Run, batches: Sequence[Batch]) -> Int8Calibration:
        found = calibrate(masters, self.rest, self.largest, run, batches)
        self.scales = found.scales
        return found

    def optimizer(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
        return BlockedLamb(parameters, spec) if spec.algorithm == "lamb" else super().optimizer(parameters, spec)

    def masked_words(self, logits: Tensor, labels: Tensor, count: int | Tensor) -> Tensor:
        return in_place(logits, labels, int(count))

    def clip(self, gradients: Gradients, most: float) -> Tensor:
        """As torch's, but with an exact norm, and gradients that are short enough are not multiplied by 1."""
        found = torch.tensor(norm(gradients.complete()))
        if 0 < most < float(found):
            nn.utils.clip_grads_with_norm_(gradients.parameters, most, found)
        return found

    def masks(self, key: np.random.SeedSequence, device: torch.device) -> Mask:
        return Masks(key, self.pool)

    def one_by_one(self, dtype: torch.dtype) -> bool:
        """With AMX; without, groups are as fast or faster (docs/performance.md)."""
        return dtype == torch.bfloat16 and self.amx

    def peak_memory(self) -> int | None:
        return process_peak_memory()

    def facts(self) -> DeviceFacts:
        return DeviceFacts("cpu", read_cpu().model)

    def describe(self) -> Mapping[str, str]:
        if not self.int8:
            return self.notes
        inputs = "each layer's inputs one scale" if self.scales else "inputs a scale per token"
        bits = "" if self.largest == INT8_WEIGHTS[8] else " in 7 bits, since this CPU adds their products in 16,"
        return {**self.notes, "dense layers": f"int8: weights{bits} a scale per output, {inputs}"}
