"""The Iluvatar backend: what it is. CoreX answers torch's CUDA interface. Nothing here imports torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import Setting, UserError
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

    def shown(self, engine: str, root: Path) -> tuple[str, ...]:
        """The device files that are here; apptainer's containers have the host's /dev."""
        if engine == "apptainer":
            return ()
        names = [path.name for path in (root / "dev").glob("*") if re.fullmatch(self.software.files, path.name)]
        if not names:
            raise UserError(
                "there is no /dev/iluvatar* to show a container",
                "check ixsmi, or name the devices of another machine, as in --container-option=--device=/dev/iluvatar0",
            )
        return tuple(f"--device=/dev/{name}" for name in sorted(names, key=lambda name: (len(name), name)))
