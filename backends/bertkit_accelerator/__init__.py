"""The backend of whatever torch.accelerator finds, at reference speed: what it is. Nothing here imports torch.

For devices without a backend of their own: Apple's, and those that a plug-in brings to torch.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from bertkit.plugin import Precision, Probe, Setting
from bertkit_torch.build import torch_build
from bertkit_torch.gpu_backend import SETTINGS, GpuBackend, can

SPEED = "at reference speed"


@dataclass(frozen=True)
class Kind:
    """A type of device, and how it is known to be here."""

    type: str  # torch's name
    package: str  # torch's plug-in
    files: str  # what its device files in /dev are called: a regular expression
    environment: tuple[str, ...]  # beginnings of the names of its variables


KINDS = (
    Kind("npu", "torch_npu", r"davinci\d+", ("ASCEND_", "HCCL_", "ACL_", "NPU_")),
    Kind("mlu", "torch_mlu", r"cambricon_dev\d+", ("MLU_", "CNCL_", "CAMBRICON_")),
    Kind("musa", "torch_musa", r"mtgpu\.\d+", ("MUSA_", "MCCL_", "MTHREADS_")),
)
OWN = ("mps", *(kind.type for kind in KINDS))


class AcceleratorBackend(GpuBackend):
    name = "accelerator"
    preference = -1  # only where it is asked for by name
    capabilities = can(("PYTORCH_", *(name for kind in KINDS for name in kind.environment)))
    settings: Mapping[str, Setting] = {
        "type": Setting("auto", f"torch's name of the device, as {', '.join(OWN)}; auto: the one that torch finds"),
        "attention": Setting("plain", "two products, or torch's fused attention", ("plain", "sdpa")),
        **{name: SETTINGS[name] for name in ("shapes", "recompute")},
    }
    device = "bertkit_accelerator.device:AcceleratorDevice"

    def look(self, root: Path, env: Mapping[str, str]) -> Probe:
        build = torch_build()
        if build is None:
            return Probe(False, "torch is not installed; pip install torch")
        found = devices(root)
        if not found:
            return Probe(
                False,
                f"no device of torch.accelerator that this knows: mps is part of torch on Apple silicon, "
                f"{', '.join(kind.type for kind in KINDS[:-1])} and {KINDS[-1].type} need their plug-in; "
                "install the vendor's plug-in for torch, and check its driver",
            )
        kind, count = found[0]
        many = f"{count} x " if count > 1 else ""
        precisions: tuple[Precision, ...] = ("fp32", "fp16")  # bf16 differs from one generation to the next: -d bf16
        return Probe(True, f"{many}{kind}, torch {build.version}, {SPEED}", precisions, (-1,) * count)


def devices(root: Path) -> list[tuple[str, int]]:
    """(type, how many) of what is here, by the plug-ins that are installed and their drivers' files."""
    found = []
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        found.append(("mps", 1))
    names = [path.name for path in (root / "dev").glob("*")]
    for kind in KINDS:
        count = sum(bool(re.fullmatch(kind.files, name)) for name in names)
        if count and util.find_spec(kind.package):
            found.append((kind.type, count))
    known = {kind.package for kind in KINDS}
    plug_ins = sorted({point.module.partition(".")[0] for point in metadata.entry_points(group="torch.backends")})
    # Of another plug-in neither the type nor the files are known: torch tells when it starts.
    return found + [(f"what {package} brings", 1) for package in plug_ins if package not in known]
