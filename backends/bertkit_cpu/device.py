"""The CPU as a torch Device: threads from the cpuset and cgroup, padding-free batches, fast dropout masks."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bertkit.backend import Job
from bertkit.world import World
from bertkit_cpu.extension import load_extension
from bertkit_cpu.topology import is_bound, read_cpu, threads
from bertkit_torch.device import Device
from bertkit_torch.dropout import Mask


class CpuDevice(Device):
    layout = "unpadded"

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def open(self, job: Job, world: World) -> torch.device:
        cpu = read_cpu()
        asked = int(job.settings.get("threads", 0))
        count, reason = threads(cpu, world.local_size, asked, env=os.environ, bound=is_bound(cpu))
        torch.set_num_threads(count)
        self.notes = {"cpu": cpu.model, "threads": f"{count}: {reason}"}
        if job.settings.get("extension", "auto") == "auto":
            self.notes["extension"] = load_extension()
        return torch.device("cpu")

    def masks(self, key: np.random.SeedSequence, device: torch.device) -> Mask:
        """16 random bits a place from SFC64: a third of the time of torch's one stream of Bernoulli draws.

        The rate is rounded to a multiple of 1/65536, and the scale follows the rounded rate.
        """
        stream = np.random.Generator(np.random.SFC64(key))

        def mask(values: Tensor, rate: float) -> Tensor:
            dropped = round(rate * 65536)
            words = stream.integers(0, 65536, size=values.numel(), dtype=np.uint16)
            kept = torch.from_numpy((words >= dropped).view(np.uint8)).view(values.shape)
            return kept.to(values.dtype).mul_(65536 / (65536 - dropped))

        return mask

    def peak_memory(self) -> int | None:
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def describe(self) -> Mapping[str, str]:
        return self.notes
