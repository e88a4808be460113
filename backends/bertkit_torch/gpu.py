"""What GPUs have in common whose module in torch has streams, graphs with pools of memory, and Triton's compiler.

A vendor says its `type`, the name of its class of graphs, and what to check where torch finds no device.
"""

from __future__ import annotations

import logging
import os
import shutil
import sysconfig
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from importlib import util
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bertkit.plugin import DeviceFacts, Job, UserError, World
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.row_attention import ROWS, InRows
from bertkit_torch.seen import Attention
from bertkit_torch.weights import ComputeWeights, NormsInFloat32

logger = logging.getLogger("bertkit.engine")
WARM = 3  # runs before a recording: compilers and libraries settle in them


class Gpu(Accelerator):
    """Attention in rows; layers compiled where Triton is there; each batch size one graph where the module has them."""

    graph = ""  # the module's class of graphs; "": it has none
    check = "check the driver, and that torch is built for this device"  # where torch finds none
    chosen = "sdpa"  # attention's kernel
    compiled = captured = False
    graphs = 0  # recorded so far

    def open(self, job: Job, world: World) -> torch.device:
        if not self.module.is_available():
            raise UserError("torch finds no device", self.check)
        where = super().open(job, world)
        self.module.set_device(where)
        self.chosen = str(job.settings.get("attention", "sdpa"))
        self.kernel = {"plain": "two products and a softmax"}.get(self.chosen, self.kernel)
        asked = {name: self.static and job.settings.get(name, "off") == "auto" for name in ("compile", "graphs")}
        self.compiled = asked["compile"] and self.has_compiler(where)
        self.captured = asked["graphs"] and not self.recompute and hasattr(self.module, self.graph)
        self.pool = self.module.graph_pool_handle() if self.captured else None
        self.notes |= {
            "layers": "compiled by torch.compile" if self.compiled else "as they are",
            "graphs": f"one {self.graph.removesuffix('Graph')} graph for each batch size" if self.captured else "none",
        }
        if self.recompute and job.settings.get("graphs", "off") == "auto":
            self.notes["graphs"] = "none: device.recompute turns them off"
        return where

    def has_compiler(self, where: torch.device) -> bool:
        """torch.compile makes its kernels with Triton, which needs a C compiler and Python.h."""
        if util.find_spec("triton") is None:
            return False
        lacks = lacking_of_triton(os.environ, Path(sysconfig.get_path("include")))
        if lacks:
            logger.warning(
                "layers are not compiled, which is slower: Triton needs %s; install it, or silence this with "
                "--set device.compile=off", lacks,
            )  # fmt: skip
        return not lacks

    def compute_weights(self, masters: Mapping[str, Tensor], dtype: torch.dtype, *, training: bool) -> ComputeWeights:
        return NormsInFloat32(masters, dtype)

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        return InRows(allowed, heads, ROWS[self.chosen])

    def compile(self, layer: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return torch.compile(layer, dynamic=False) if self.compiled else layer

    def capture(self, run: Callable[[], None]) -> Callable[[], None]:
        """One graph; all of them share one pool of memory, since they are replayed one after another."""
        if not self.captured:
            return run
        module = self.module
        aside = module.Stream()
        aside.wait_stream(module.current_stream())
        with module.stream(aside):
            for _ in range(WARM):
                run()
        module.current_stream().wait_stream(aside)
        graph = getattr(module, self.graph)()
        self.graphs += 1
        with self.recording(graph):
            run()
        replay: Callable[[], None] = graph.replay
        return replay

    def recording(self, graph: Any) -> AbstractContextManager[Any]:
        """While it is entered, work that is given to the device is recorded and not done."""
        found: AbstractContextManager[Any] = self.module.graph(graph, pool=self.pool)
        return found

    def programs(self) -> int | None:
        if not self.compiled and not self.captured:
            return None
        return (super().programs() or 0) + self.graphs

    def facts(self) -> DeviceFacts:
        about = self.module.get_device_properties(self.where)
        return DeviceFacts("accelerator", str(about.name), int(about.total_memory))


def lacking_of_triton(env: Mapping[str, str], include: Path) -> str:
    """What Triton builds its launchers with and that is not here; "": nothing."""
    path = env.get("PATH")
    named = env.get("CC", "")
    compilers = [named] if named else ["clang", "gcc"]  # in Triton's own order of search
    if not any(shutil.which(compiler.split()[0], path=path) for compiler in compilers if compiler.split()):
        return f"the C compiler {named} that CC names" if named else "a C compiler (gcc)"
    if not (include / "Python.h").exists():
        return f"Python.h in {include} (Debian: python3-dev)"
    return ""
