"""Whether a Gaudi is here, and which: from files and hl-smi, without importing torch or the vendor's package."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path

from bertkit.plugin import read_text_if_there
from bertkit_gaudi.environment import MODULES
from bertkit_gaudi.generations import Generation, by_product

VENDOR = "0x1da3"  # of its PCI devices
GET = (
    "run the vendor's container (gaudi-docker, pytorch-installer; docker run --runtime=habana), "
    "or its installer: habanalabs-installer.sh install --type pytorch"
)
SECONDS = 5.0  # that hl-smi may take


@dataclass(frozen=True)
class Cards:
    """The cards of this host that its processes may use, in the order of their local ranks."""

    nodes: tuple[int, ...]  # memory node of each, -1: not known
    generation: Generation | None = None
    product: str = ""


def package_version() -> str:
    """Of the vendor's torch plug-in; "" where it is not installed."""
    if util.find_spec("habana_frameworks") is None:
        return ""
    try:
        return metadata.version("habana-torch-plugin")
    except metadata.PackageNotFoundError:
        return "unknown"


def find_cards(root: Path, env: Mapping[str, str]) -> Cards:
    """How many and which by hl-smi where it answers, else by the driver's files, which also say where each one is."""
    nodes = by_files(root)
    found = ask_tool(env) or Cards((-1,) * (len(nodes) or count_old(root)))
    modules = visible(env.get(MODULES, ""), len(found.nodes))
    return replace(found, nodes=tuple(nodes.get(module, -1) for module in modules))


def visible(modules: str, count: int) -> list[int]:
    """The module of each local rank: those that are named, or all; a module's number is not the driver's index."""
    if not modules:
        return list(range(count))
    return [int(word) for word in modules.split(",") if re.fullmatch("[0-9]{1,9}", word.strip())][:count]


def by_files(root: Path) -> dict[int, int]:
    """Module -> memory node, -1 where it is not known, of the kernel's accelerator devices.

    Drivers that do not tell the module: numbers below zero, so that nobody takes them for one.
    """
    found: dict[int, int] = {}
    for device in sorted((root / "sys/class/accel").glob("accel*/device")):
        if _text(device / "vendor") == VENDOR:
            module = _number(device / "module_id")
            found[module if module >= 0 else -len(found) - 1] = _number(device / "numa_node")
    return found


def count_old(root: Path) -> int:
    """The device files of older drivers."""
    return len([path for path in (root / "dev").glob("hl*") if re.fullmatch(r"hl\d+", path.name)])


def ask_tool(env: Mapping[str, str]) -> Cards | None:
    """What `hl-smi` says; None where it is not there or does not answer."""
    program = shutil.which("hl-smi", path=env.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-Q", "index,name", "-f", "csv,noheader"],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return read_answer(done.stdout)


def read_answer(text: str) -> Cards | None:
    """Lines of `index, name`; anything else is passed over."""
    names = re.findall(r"^\s*\d+\s*,\s*(\S+)\s*$", text, re.MULTILINE)
    if not names:
        return None
    return Cards((-1,) * len(names), by_product(names[0]), names[0])


def _text(path: Path) -> str:
    return read_text_if_there(path)


def _number(path: Path) -> int:
    text = _text(path)
    return int(text) if re.fullmatch(r"[0-9]{1,9}", text) else -1
