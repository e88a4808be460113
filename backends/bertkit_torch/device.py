"""How a torch vendor differs from plain torch, and nothing else; every method has a plain-torch default."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from bertkit.backend import DeviceFacts, Job, LayoutKind, OptimizerSpec, Peak, Precision
from bertkit.layouts import Grain
from bertkit.world import World
from bertkit_torch.dropout import Mask, torch_masks
from bertkit_torch.optimizer import AdamW
from bertkit_torch.weights import ComputeWeights

PEAK_SECONDS = 0.5  # spent on measuring the dense rate at the end of a run


class Device:
    """A vendor subclasses this and overrides what is different on its chip."""

    collectives = "gloo"  # torch.distributed's name of the vendor's library
    layout: LayoutKind = "padded"  # what `auto` means here
    grain = Grain()  # of unpadded batches

    def open(self, job: Job, world: World) -> torch.device:
        """Choose the device of this process; called once, before anything is put on it."""
        return torch.device("cpu")

    def compute_dtype(self, precision: Precision) -> torch.dtype:
        """What the dense layers compute in; the masters stay float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def compute_weights(
        self, masters: Mapping[str, torch.Tensor], dtype: torch.dtype, *, training: bool
    ) -> ComputeWeights:
        """The weights of one update's forward passes, or of all until the next update, and the products with them."""
        return ComputeWeights(masters, dtype)

    def masks(self, key: np.random.SeedSequence, device: torch.device) -> Mask:
        """Dropout masks of one forward pass."""
        return torch_masks(key, device)

    def optimizer(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> AdamW:
        return AdamW(parameters, spec)

    def clip_grad_norm(self, parameters: list[nn.Parameter], most: float) -> torch.Tensor:
        """Scale all gradients so that their global L2 norm is `most` at the most; returns the norm before that."""
        return nn.utils.clip_grad_norm_(parameters, most if most > 0 else float("inf"))

    def step_boundary(self) -> None:
        """After backward and after the update: a lazy backend starts its work here."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    def peak_memory(self) -> int | None:
        """Bytes, the largest so far; None where it cannot be known."""
        return None

    def peak(self, precision: Precision, device: torch.device) -> Peak:
        """The dense rate: the best of repeated products of 2048 x 2048 matrices (17.2 GFLOP each), measured now."""
        dtype = self.compute_dtype(precision)
        a, b = (torch.ones(2048, 2048, dtype=dtype, device=device) for _ in range(2))
        best = float("inf")
        until = time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            torch.matmul(a, b)
            self.synchronize()
            best = min(best, time.perf_counter() - start)
        name = str(dtype).removeprefix("torch.")
        return Peak(2 * 2048**3 / best, f"measured: best {name} product of 2048 x 2048 matrices in {PEAK_SECONDS} s")

    def facts(self) -> DeviceFacts | None:
        """The device of this process, for the record; None: only its kind is known."""
        return None

    def energy(self) -> float | None:
        """Joules that this process's accelerator spent since some moment; None where it does not tell."""
        return None

    def describe(self) -> Mapping[str, str]:
        """What was chosen on this chip and why."""
        return {}
