"""The Iluvatar backend: the card. CoreX answers torch's CUDA interface. Nothing here imports torch."""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import Capabilities, Engine, Job, Probe, Setting, World
from bertkit_torch.build import torch_build

HOME = "usr/local/corex"  # where the software is installed


class IluvatarBackend:
    name = "iluvatar"
    aliases: tuple[str, ...] = ("corex",)
    preference = 35  # CoreX's torch also says that it has CUDA
    capabilities = Capabilities(
        precisions=("fp32", "bf16", "fp16"),
        heads=("classification", "multilabel", "regression", "choice", "tokens", "span", "pretraining", "encoder"),
        layouts=("padded", "packed"),
        extras=("class_weights", "label_smoothing", "focal_gamma", "layer_decay", "freeze"),
        environment=("CUDA_", "NCCL_", "COREX_", "IXCCL_", "ENABLE_FLASH_ATTENTION_"),
        gradients=("fp32", "bf16"),
        sharded_optimizer=True,
    )
    settings: Mapping[str, Setting] = {
        "dist_backend": Setting("nccl", "library for gradient all-reduce", ("nccl", "gloo")),
        "attention": Setting("sdpa", "torch's fused attention, or two plain products", ("sdpa", "plain")),
        "shapes": Setting(8, "sizes that batches are rounded up to"),
        "recompute": Setting(False, "keep only each layer's input and compute its inside again in backward"),
    }

    def probe(self) -> Probe:
        return look(Path("/"), os.environ)

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        from bertkit_iluvatar.device import IluvatarDevice
        from bertkit_torch.engine import TorchEngine

        return TorchEngine(IluvatarDevice(), job, world)


def look(root: Path, env: Mapping[str, str]) -> Probe:
    """What the files under `root` and the installed torch say."""
    home = root / HOME
    installed = home.exists() or shutil.which("ixsmi", path=env.get("PATH")) is not None
    if not installed:
        return Probe(
            False,
            "CoreX is not installed; run Iluvatar's CoreX container, or its corex installer and its build of torch",
        )
    build = torch_build()
    if build is None or "corex" not in build.version:
        has = f"torch {build.version} is another's" if build else "torch is missing"
        return Probe(False, f"CoreX is here, but {has}; install the torch wheel of the CoreX release")
    cards = count_cards(root, env)
    if not cards:
        return Probe(
            False, "CoreX is installed, but no device is visible; check ixsmi, /dev/iluvatar* and CUDA_VISIBLE_DEVICES"
        )
    detail = f"{cards} card{'s' if cards > 1 else ''}, torch {build.version}"
    return Probe(True, detail, ("fp32", "fp16"), (-1,) * cards)


def count_cards(root: Path, env: Mapping[str, str]) -> int:
    """The device files, of which CUDA_VISIBLE_DEVICES leaves some; its list ends at the first that does not exist."""
    files = [path for path in (root / "dev").glob("iluvatar*") if re.fullmatch(r"iluvatar\d+", path.name)]
    shown = env.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return len(files)

    def there(word: str) -> bool:
        return word.startswith("GPU-") or (bool(re.fullmatch("[0-9]{1,9}", word)) and int(word) < len(files))

    return min(len(files), len(list(itertools.takewhile(there, map(str.strip, shown.split(","))))))
