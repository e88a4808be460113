"""How a torch vendor differs from plain torch, and nothing else; every method has a plain-torch default."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import (
    Arrays,
    Batch,
    DeviceFacts,
    Grain,
    Int8Calibration,
    Job,
    LayoutKind,
    OptimizerSpec,
    Peak,
    Precision,
    World,
)
from bertkit_torch.dropout import Mask, torch_masks
from bertkit_torch.gradients import Gradients
from bertkit_torch.lamb import Lamb
from bertkit_torch.losses import masked_words
from bertkit_torch.optimizer import AdamW, Optimizer
from bertkit_torch.ranks import Ranks
from bertkit_torch.row_attention import InRows, InStretches, sdpa, stretches_by_mask
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights

Run = Callable[[ComputeWeights, Batch], Arrays]  # a forward pass by these weights
PEAK_SECONDS = 0.25  # spent on measuring the dense rate, at a run's start and at its end
PEAK_SIZE = 2048  # rows and columns of the matrices, at first


class Device:
    """A vendor subclasses this and overrides what is different on its chip."""

    collectives = "gloo"  # torch.distributed's name of the vendor's library
    layout: LayoutKind = "padded"  # what `auto` means here
    grain = Grain()  # of unpadded batches
    inference_grain: Grain | None = None  # of those of inference, where it is another
    static = False  # whether batches are brought to a few fixed sizes; what follows is for such chips
    flat = False  # one row of ragged stretches, for a kernel that takes them; else rows with a mask
    kernel = "scaled_dot_product_attention"  # attention's, in words
    peak_size = PEAK_SIZE
    recompute = False  # layers are computed again in backward, instead of kept

    def open(self, job: Job, world: World) -> torch.device:
        """Choose the device of this process; called once, before anything is put on it."""
        return torch.device("cpu")

    def settle(self, job: Job, ranks: Ranks) -> None:
        """Choose what must be alike on all ranks, once they have met; called after `open`, before any pass. A
        collective."""

    def state_dict(self) -> Arrays:
        """What was chosen that the numbers depend on, for the checkpoint: under names that begin with `device.`"""
        return {}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Choose as a checkpoint says. Returns whether that changes anything: the passes are then made anew."""
        return False

    def compute_dtype(self, precision: Precision) -> torch.dtype:
        """What the dense layers compute in; the masters stay float32."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)

    def peak_dtype(self, precision: Precision) -> torch.dtype:
        """What products really compute in."""
        return self.compute_dtype(precision)

    def compute_weights(self, masters: Mapping[str, Tensor], dtype: torch.dtype, *, training: bool) -> ComputeWeights:
        """The weights of one update's forward passes, or of all until the next update, and the products with them."""
        return ComputeWeights(masters, dtype)

    def wants_calibration(self) -> bool:
        """Whether inference is in int8, and would be faster by scales that `calibrate` finds."""
        return False

    def calibrate(self, masters: Mapping[str, Tensor], run: Run, batches: Sequence[Batch]) -> Int8Calibration:
        """Find them; `compute_weights` uses them from then on."""
        raise NotImplementedError

    def masks(self, key: np.random.SeedSequence, device: torch.device) -> Mask:
        """Dropout masks of one forward pass."""
        return torch_masks(key, device)

    def masked_words(self, logits: Tensor, labels: Tensor, count: int | Tensor) -> Tensor:
        """Cross-entropy (a scalar) of logits (M, V) by labels (M,), summed and divided by `count`; -100 is no label.

        Of batches of their own shape, without loss scaling; nothing reads the logits after it.
        """
        return masked_words(logits, labels, count)

    def optimizer(self, parameters: Mapping[str, nn.Parameter], spec: OptimizerSpec) -> Optimizer:
        return Lamb(parameters, spec) if spec.algorithm == "lamb" else AdamW(parameters, spec)

    def autocast(self, precision: Precision) -> AbstractContextManager[object]:
        """Around a forward pass and its loss, for a chip whose own lists say which operators compute in `precision`."""
        return nullcontext()

    def one_by_one(self, dtype: torch.dtype) -> bool:
        """Whether torch's attention kernel over one sequence after another is, in inference, faster than groups."""
        return False

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        """Attention in rows of one width; `allowed` (R, 1, S, S) says who sees whom."""
        return InRows(allowed, heads, sdpa)

    def in_stretches(self, bounds: Tensor, longest: int, heads: int) -> Attention:
        """Attention within the ragged stretches of one row that `bounds` (K + 1,) int32 cuts."""
        return InStretches(bounds, longest, heads, stretches_by_mask)

    def compile(self, layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The encoder layer's function, made faster where this chip has a compiler."""
        return layer

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """A replay of everything that `run` gives the device to do, where this chip records such; `run` where not.

        `run` reads and writes the same places each time; it may be carried out some times on the way.
        """
        return run

    def seed(self, number: int) -> None:
        """Of the generator that this device's own dropout draws from."""
        torch.manual_seed(number)

    def pin(self, host: Tensor) -> Tensor:
        """A host tensor where the device can fetch it from without a stop; called in the thread that works ahead."""
        return host

    def upload(self, host: Tensor, where: torch.device) -> Tensor:
        return host.to(where, non_blocking=True)

    def clip(self, gradients: Gradients, most: float) -> Tensor:
        """Scale all gradients so that their global L2 norm is `most` at the most; returns the norm before that."""
        return gradients.clip(most)

    def step_boundary(self) -> None:
        """After each backward pass and after the update: a lazy backend starts its work here."""

    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    def free(self) -> None:
        """Give back memory that is held and not in use."""

    def peak_memory(self) -> int | None:
        """Bytes, the largest so far; None where it cannot be known."""
        return None

    def peak(self, precision: Precision, device: torch.device) -> Peak:
        """The dense rate: the best of repeated products of square matrices (2048: 17.2 GFLOP each), measured now.

        Of random numbers, as a model's are: a chip that is limited by its power multiplies ones faster.

        The matrices grow up to `peak_size` where a product takes under a millisecond.
        """
        dtype, size = self.peak_dtype(precision), PEAK_SIZE
        best = self._best_product(size, dtype, device)
        while size < self.peak_size and best < 1e-3:
            size *= 2
            best = self._best_product(size, dtype, device)
        name = "tf32" if precision == "tf32" else str(dtype).removeprefix("torch.")
        how = f"measured: best {name} product of {size} x {size} matrices in {PEAK_SECONDS} s"
        return Peak(2 * size**3 / best, how)

    def _best_product(self, size: int, dtype: torch.dtype, device: torch.device) -> float:
        """Seconds of one product."""
        own = torch.Generator().manual_seed(0)  # training's stays as it is
        a, b = (torch.randn(size, size, generator=own).to(device, dtype) for _ in range(2))
        best = float("inf")
        until = time.perf_counter() + PEAK_SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            torch.matmul(a, b)
            self.synchronize()
            best = min(best, time.perf_counter() - start)
        return best

    def programs(self) -> int | None:
        """Programs compiled for this chip in this process; None where it compiles none or does not tell."""
        return None

    def profile(self, trace: Path) -> AbstractContextManager[object]:
        """Records what this process and its chip do meanwhile as a Chrome trace: torch's profiler, or the vendor's."""
        from bertkit_torch.profiling import recorded  # torch.profiler takes a while to import

        return recorded(trace)

    def facts(self) -> DeviceFacts | None:
        """The device of this process, for the record; None: only its kind is known."""
        return None

    def energy(self) -> float | None:
        """Joules that this process's accelerator spent since some moment; None where it does not tell."""
        return None

    def describe(self) -> Mapping[str, str]:
        """What was chosen on this chip and why."""
        return {}
