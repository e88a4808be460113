"""The command `bertkit` on a machine with the stand-in's device: STANDIN_ROOT has its files in place of `/`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bertkit_xpu
from bertkit.cli.main import main
from bertkit_accelerator import AcceleratorBackend
from bertkit_torch.build import Build, torch_build
from bertkit_torch.gpu_backend import GpuBackend
from bertkit_xpu import XpuBackend


def probed(self: GpuBackend) -> object:
    return self.look(Path(os.environ["STANDIN_ROOT"]), os.environ)


def xpu_build() -> Build:
    found = torch_build()
    assert found is not None
    return Build(found.version, {"xpu": "20260100"})


XpuBackend.probe = AcceleratorBackend.probe = probed  # type: ignore[assignment, method-assign]
bertkit_xpu.torch_build = xpu_build
main(sys.argv[1:])
