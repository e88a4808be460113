"""A GPU as a torch Device: which attention kernel, compiled layers, CUDA graphs, NCCL."""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from importlib import util
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bertkit.plugin import Arrays, DeviceFacts, Job, Precision, UserError, World
from bertkit_cuda.cards import driver
from bertkit_cuda.energy import joules
from bertkit_cuda.kernels import FLAT, STRETCHES, Wanted, candidates
from bertkit_cuda.support import GET, has_code_for
from bertkit_cuda.trial import choose, proven
from bertkit_cuda.weights import TrainingWeights
from bertkit_torch.gpu import Gpu
from bertkit_torch.ranks import Ranks
from bertkit_torch.row_attention import InStretches
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights

CHOICE = "device.attention"  # the kernel's name in a checkpoint, as bytes
logger = logging.getLogger("bertkit.engine")


class CudaDevice(Gpu):
    type = "cuda"
    collectives = "nccl"
    graph = "CUDAGraph"
    check = "check nvidia-smi, CUDA_VISIBLE_DEVICES, and torch's CUDA build"

    def open(self, job: Job, world: World) -> torch.device:
        where = super().open(job, world)
        check_architecture(where)
        self._set_precision(job.precision)
        self._set_order(bool(job.settings.get("deterministic", False)))
        self.chosen = "plain"
        self._describe(where)
        return where

    def index(self, world: World) -> int:
        """A launcher that gives each process one GPU (Slurm's --gpus-per-task=1) shows it as number 0 to all of them;
        that they are different ones is seen when the ranks have met."""
        return 0 if int(torch.cuda.device_count()) == 1 and world.local_size > 1 else super().index(world)

    def settle(self, job: Job, ranks: Ranks) -> None:
        """The attention kernel, which the first rank chooses: another one elsewhere would have other rounding."""
        self._refuse_shared(ranks)
        self.asked = str(job.settings.get("attention", "auto"))
        if not self.static:
            return
        dtype = self.compute_dtype(job.precision)
        size = job.model.hidden_size // job.model.num_attention_heads
        capability = (0, 0) if torch.version.hip else torch.cuda.get_device_capability(self.where)
        self.usable = candidates(Wanted(self.asked, job.layout, dtype != torch.float32, capability, size))
        if torch.version.hip:
            like = torch.zeros(job.model.num_attention_heads, size, dtype=dtype, device=self.where)
            self.usable = proven(self.usable, self.asked, like)
        name, why = self.usable[0], ""
        if ranks.world.is_first:
            name, why = choose(self.usable, job, dtype, self.where, self.capture)
        self.graphs = 0  # those of the trial are no programs of the job's
        if ranks.world.size > 1:
            name, _, why = ranks.from_first(f"{name} {why}").partition(" ")
        if name not in self.usable:
            raise UserError(
                f"the first rank takes the attention kernel {name}, which the GPU of rank {ranks.world.rank} lacks",
                "name one that all have, as device.attention=sdpa",
            )
        self._take(name, why)

    def _take(self, name: str, why: str) -> None:
        self.chosen, self.flat, self.kernel = name, name in FLAT, f"{name} ({why})"

    def _refuse_shared(self, ranks: Ranks) -> None:
        """Ranks that all have the number 0 must not have one GPU together."""
        if ranks.world.size == 1:
            return
        uuid = str(getattr(torch.cuda.get_device_properties(self.where), "uuid", ""))
        shown = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        part = shown if shown.startswith("MIG-") or not uuid else ""  # parts of a GPU share its UUID
        mine = f"{platform.node()} {uuid} {self.where.index} {part}"
        owners: dict[str, int] = {}
        for rank, whose in enumerate(ranks.from_each(mine)):
            if owners.setdefault(whose, rank) != rank:
                raise UserError(
                    f"ranks {owners[whose]} and {rank} have one GPU together, local rank "
                    f"{ranks.world.local_rank} has no device of its own",
                    "start one process for each GPU, or show them more of them",
                )

    def state_dict(self) -> Arrays:
        return {CHOICE: np.frombuffer(self.chosen.encode(), np.uint8).copy()} if self.static else {}

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """A resume takes the checkpoint's kernel, unless another was asked for or this GPU lacks it."""
        kept = bytes(arrays[CHOICE].astype(np.uint8)).decode(errors="replace") if CHOICE in arrays else self.chosen
        if not self.static or kept == self.chosen:
            return False
        if kept not in self.usable:
            why = "was asked for" if self.asked != "auto" else f"this GPU or layout has no {kept}"
            logger.warning("trained so far with attention kernel %s, from here on with %s: %s", kept, self.chosen, why)
            return False
        self._take(kept, "as in the checkpoint")
        return True

    def _set_order(self, deterministic: bool) -> None:
        """Of sums: fixed, or the fastest."""
        self.notes["sums"] = (
            "in a fixed order" if deterministic else "in the fastest order: a resume is not bit for bit"
        )
        if deterministic:
            torch.use_deterministic_algorithms(True)  # both ragged kernels have an order of their own then
            torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

    def _set_precision(self, precision: Precision) -> None:
        """fp32 means fp32: tf32's 10-bit mantissa only where it is asked for."""
        tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False  # sums must not leave fp16's range

    def has_compiler(self, where: torch.device) -> bool:
        """Triton needs compute capability 7.0."""
        if util.find_spec("triton") is None or torch.cuda.get_device_capability(where) < (7, 0):
            return False
        return super().has_compiler(where)

    def compute_weights(self, masters: Mapping[str, Tensor], dtype: torch.dtype, *, training: bool) -> ComputeWeights:
        if training and self.static:
            return TrainingWeights(masters, dtype)
        return super().compute_weights(masters, dtype, training=training)

    def in_stretches(self, bounds: Tensor, longest: int, heads: int) -> Attention:
        return InStretches(bounds, longest, heads, STRETCHES[self.chosen])

    def recording(self, graph: Any) -> AbstractContextManager[Any]:
        """Other threads may pin memory meanwhile, which a capture in mode "global" would take for a fault."""
        found: AbstractContextManager[Any] = torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local")
        return found

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


def check_architecture(where: torch.device) -> None:
    """Raises UserError where torch has no code for this GPU."""
    if torch.version.hip:
        return
    capability, known = torch.cuda.get_device_capability(where), torch.cuda.get_arch_list()
    if not has_code_for(capability, known):
        raise UserError(
            f"torch {torch.__version__} has no code for this GPU's compute capability "
            f"{capability[0]}.{capability[1]}, only for {' '.join(known)}",
            f"install a torch that has, as {GET} shows",
        )
