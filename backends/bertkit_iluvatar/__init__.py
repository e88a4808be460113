"""The Iluvatar backend: what it is. CoreX answers torch's CUDA interface. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.plugin import Setting
from bertkit_torch.gpu_backend import SETTINGS, GpuBackend, Software, can


class IluvatarBackend(GpuBackend):
    name = "iluvatar"
    aliases = ("corex",)
    preference = 35  # CoreX's torch also says that it has CUDA
    capabilities = can(("CUDA_", "NCCL_", "COREX_", "IXCCL_", "IX_", "ILUVATAR_", "ENABLE_FLASH_ATTENTION_"))
    settings: Mapping[str, Setting] = {
        "dist_backend": Setting("nccl", "library for gradient all-reduce", ("nccl", "gloo")),
        **SETTINGS,
    }
    software = Software(
        name="CoreX",
        folder="usr/local/corex",
        tool="ixsmi",
        mark="corex",
        files=r"iluvatar\d+",
        get="run Iluvatar's CoreX container, or its corex installer and its build of torch",
        torch="install the torch wheel of the CoreX release",
    )
    containers = ("IX_VISIBLE_DEVICES", "ILUVATAR_COREX_VISIBLE_DEVICES")
    device = "bertkit_iluvatar.device:IluvatarDevice"
