"""The backend of Intel GPUs, through torch's own XPU build: what it is. Nothing here imports torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import Probe, Setting, read_text_if_there
from bertkit_torch.build import torch_build
from bertkit_torch.gpu_backend import SETTINGS, GpuBackend, can

VENDOR = "0x8086"  # of its PCI devices


class XpuBackend(GpuBackend):
    name = "xpu"
    aliases = ("intel-gpu",)
    preference = 25
    capabilities = can(("ZE_", "ZES_", "ONEAPI_", "SYCL_", "UR_", "CCL_", "FI_", "IGC_"))
    settings: Mapping[str, Setting] = {
        **SETTINGS,
        "attention": Setting(
            "plain",
            "two products, or torch's fused attention, whose kernel here trains without dropout and mask alone",
            ("plain", "sdpa"),
        ),
        "graphs": Setting("off", "forward and backward of each batch size as one XPU graph", ("auto", "off")),
    }
    device = "bertkit_xpu.device:XpuDevice"

    def shown(self, engine: str, root: Path) -> tuple[str, ...]:
        """The folder of the device files, and the group that may open them; apptainer's containers have the host's /dev
        and groups."""
        if engine == "apptainer":
            return ()
        if engine == "podman":
            return ("--device=/dev/dri", "--group-add=keep-groups")
        nodes = [root / "dev/dri" / file for file, _ in gpus(root)]
        groups = sorted({node.stat().st_gid for node in nodes if node.exists()})
        return ("--device=/dev/dri", *(f"--group-add={group}" for group in groups))

    def look(self, root: Path, env: Mapping[str, str]) -> Probe:
        build = torch_build()
        if build is None:
            return Probe(False, "torch is not installed; install an XPU build as https://pytorch.org/get-started shows")
        here = gpus(root)
        shown = visible(len(here), env)
        if not shown:
            named = [f"{name}={env[name]}" for name in ("ZE_AFFINITY_MASK", "ONEAPI_DEVICE_SELECTOR") if env.get(name)]
            hidden = f" ({', '.join(named)})" if named else ""
            return Probe(
                False,
                f"no Intel GPU is visible{hidden}; install Intel's compute runtime, or start the container with "
                "--device /dev/dri",
            )
        if "xpu" not in build.toolkits:
            return Probe(
                False,
                f"an Intel GPU is here, but torch {build.version} is built without XPU; "
                "install an XPU build of torch as https://pytorch.org/get-started shows",
            )
        closed = [file for file, _ in here if not os.access(root / "dev/dri" / file, os.R_OK | os.W_OK)]
        if closed:
            return Probe(
                False,
                f"an Intel GPU is here, but /dev/dri/{closed[0]} cannot be opened; add this user to the group render, "
                "or start the container with --device /dev/dri",
            )
        many = f"{len(shown)} x " if len(shown) > 1 else ""
        detail = f"{many}Intel GPU, torch {build.version} with XPU {build.toolkits['xpu']}"
        nodes = tuple(here[number][1] if number < len(here) else -1 for number in shown)
        return Probe(True, detail, self.capabilities.precisions, nodes)


def gpus(root: Path) -> list[tuple[str, int]]:
    """(render node, memory node, -1 where it is not known) of each, in the kernel's order."""
    found = []
    for file in (root / "sys/class/drm").glob("renderD*"):
        if read_text_if_there(file / "device/vendor").strip() == VENDOR:
            node = read_text_if_there(file / "device/numa_node").strip()
            found.append((file.name, int(node) if re.fullmatch(r"-?[0-9]{1,9}", node) else -1))
    return sorted(found, key=lambda entry: (len(entry[0]), entry[0]))


def visible(count: int, env: Mapping[str, str]) -> list[int]:
    """The number of the device of each that the runtime shows a process; a part of a device (1.0) counts by itself.

    Sources: Level Zero, ZE_AFFINITY_MASK; oneAPI DPC++, ONEAPI_DEVICE_SELECTOR, whose other forms are left to it.
    """
    mask = env.get("ZE_AFFINITY_MASK", "").strip()
    if not mask:
        selected = re.fullmatch(r"(?:level_zero|\*):(\d{1,4}(?:,\d{1,4})*)", env.get("ONEAPI_DEVICE_SELECTOR", ""))
        mask = selected[1] if selected else ""
    if not mask:
        return list(range(count))
    words = [word.strip() for word in mask.split(",")]
    return [int(word.split(".")[0]) for word in words if count and re.fullmatch(r"\d{1,4}(\.\d{1,4})?", word)]
