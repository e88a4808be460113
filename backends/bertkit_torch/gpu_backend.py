"""What backends of GPUs have in common that answer torch's interface for another vendor's. It imports no torch.

Such a vendor ships software of its own with a build of torch, and its driver makes one device file a device. A vendor
says where these are and what its variables are called, and names its `Device`.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from bertkit.plugin import Capabilities, Engine, Job, LayoutKind, Precision, Probe, Setting, UserError, World
from bertkit_torch.build import torch_build
from bertkit_torch.capabilities import EXTRAS, HEADS

SETTINGS: Mapping[str, Setting] = {
    "attention": Setting("sdpa", "torch's fused attention, or two plain products", ("sdpa", "plain")),
    "compile": Setting("auto", "the encoder layer through torch.compile where Triton is installed", ("auto", "off")),
    "shapes": Setting(8, "sizes that batches are rounded up to; more waste less and take longer to warm up"),
    "recompute": Setting(False, "keep only each layer's input and compute its inside again in backward"),
}


def can(
    environment: tuple[str, ...],
    precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16"),
    layouts: tuple[LayoutKind, ...] = ("padded", "packed"),
) -> Capabilities:
    """What the torch engine can do in rows on any accelerator."""
    return Capabilities(
        precisions=precisions,
        heads=HEADS,
        layouts=layouts,
        extras=EXTRAS,
        environment=environment,
        gradients=("fp32", "bf16"),
        sharded_optimizer=True,
    )


@dataclass(frozen=True)
class Software:
    """A vendor's own, and how it is known."""

    name: str
    folder: str  # under the root, where it is installed
    tool: str  # its program that lists devices
    mark: str  # in the version of its build of torch
    files: str  # what the device files in /dev are called: a regular expression
    get: str  # how to get it, as an order
    torch: str  # how to get its torch, as an order


class GpuBackend:
    """A vendor says the rest: `name`, `aliases`, `preference`, `capabilities`, and what follows."""

    name = ""
    aliases: tuple[str, ...] = ()
    preference = 30
    capabilities: Capabilities
    settings: Mapping[str, Setting] = SETTINGS
    software: Software
    visible = "CUDA_VISIBLE_DEVICES"  # the numbers of devices that its runtime leaves to a process
    containers: tuple[str, ...] = ()  # variables by which a container was given some devices
    device = ""  # the `Device` of its processes, as package.module:Class

    def probe(self) -> Probe:
        return self.look(Path("/"), os.environ)

    def look(self, root: Path, env: Mapping[str, str]) -> Probe:
        """What the files under `root` and the installed torch say."""
        software = self.software
        if not (root / software.folder).exists() and shutil.which(software.tool, path=env.get("PATH")) is None:
            return Probe(False, f"{software.name} is not installed; {software.get}")
        build = torch_build()
        if build is None or software.mark not in build.version:
            has = f"torch {build.version} is another's" if build else "torch is missing"
            return Probe(False, f"{software.name} is here, but {has}; {software.torch}")
        count = self.count(root, env)
        if not count:
            files = re.sub(r"\\d\+$", "*", software.files)
            names = [self.visible, *(name for name in self.containers if name in env)]
            lists = " and ".join(f"{name}={env[name]}" if name in env else name for name in names)
            where = f"check {software.tool}, /dev/{files} and {lists}"
            return Probe(False, f"{software.name} is installed, but no device is visible; {where}")
        many = f"{count} device{'s' if count > 1 else ''}"
        return Probe(True, f"{many}, torch {build.version}", self.capabilities.precisions, (-1,) * count)

    def count(self, root: Path, env: Mapping[str, str]) -> int:
        """The device files, of which the vendor's variables leave some."""
        dev = root / "dev"
        here = sum(bool(re.fullmatch(self.software.files, path.name)) for path in dev.glob("*"))
        for name in self.containers:
            here = min(here, given(env.get(name, "")) if env.get(name) else here)
        return left(here, env[self.visible]) if self.visible in env else here

    def container_options(self, engine: str) -> tuple[str, ...]:
        return self.shown(engine, Path("/"))

    def shown(self, engine: str, root: Path) -> tuple[str, ...]:
        """Options by which a container has the device files under `root`. Raises UserError where they are not known."""
        raise UserError(
            f"how {engine} shows a container the devices of the backend {self.name} is not known",
            "name them, as in --container-option=--device=/dev/NAME",
        )

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        return {}

    def engine(self, job: Job, world: World) -> Engine:
        from bertkit_torch.engine import TorchEngine

        module, _, name = self.device.partition(":")
        made: Any = getattr(import_module(module), name)
        return TorchEngine(made(), job, world)


def given(text: str) -> int:
    """How many devices a container was given by a list of numbers or UUIDs, by `all`, or by `none` or `void`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == ["all"]:
        return 10**9
    return 0 if words in (["none"], ["void"]) else len(words)


def left(count: int, text: str) -> int:
    """How many of `count` devices a list of numbers or UUIDs leaves; it ends at the first that does not exist."""

    def there(word: str) -> bool:
        return word.startswith("GPU-") or (bool(re.fullmatch("[0-9]{1,9}", word)) and int(word) < count)

    return min(count, len(list(itertools.takewhile(there, map(str.strip, text.split(","))))))
