"""The CPU as a torch Device: threads from the cpuset and cgroup, padding-free batches, fast dropout masks."""

from __future__ import annotations

import math
import os
import resource
import sys
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bertkit.backend import Job
from bertkit.layouts import Grain
from bertkit.world import World
from bertkit_cpu.extension import load_extension
from bertkit_cpu.memory import keep_freed_memory
from bertkit_cpu.topology import is_bound, read_cpu, threads
from bertkit_torch.device import Device
from bertkit_torch.dropout import Mask, Shape


class CpuDevice(Device):
    layout = "unpadded"
    grain = Grain(slots=32, width=16, waste=0.05)

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def open(self, job: Job, world: World) -> torch.device:
        cpu = read_cpu()
        asked = int(job.settings.get("threads", 0))
        count, reason = threads(cpu, world.local_size, asked, env=os.environ, bound=is_bound(cpu))
        torch.set_num_threads(count)
        memory = keep_freed_memory()
        self.notes = {"cpu": cpu.model, "threads": f"{count}: {reason}", "memory": memory}
        if job.settings.get("extension", "auto") == "auto":
            self.notes["extension"] = load_extension()
        return torch.device("cpu")

    def masks(self, key: np.random.SeedSequence, device: torch.device) -> Mask:
        """16 random bits a place from SFC64: a third of the time of torch's one stream of Bernoulli draws.

        The rate is rounded to a multiple of 1/65536, and the scale follows the rounded rate.
        """
        stream = np.random.SFC64(key)

        def mask(shape: Shape, dtype: torch.dtype, rate: float) -> tuple[Tensor, float]:
            dropped = round(rate * 65536)
            places = math.prod(shape)
            words = torch.from_numpy(stream.random_raw(-(-places // 4)).view(np.int16))[:places].view(shape)
            kept = torch.empty(shape, dtype=dtype)
            torch.ge(words, dropped - 32768, out=kept)
            return kept, 65536 / (65536 - dropped)

        return mask

    def peak_memory(self) -> int | None:
        unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in KiB elsewhere
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def describe(self) -> Mapping[str, str]:
        return self.notes
