"""Whether a Gaudi is here, and which: from files and hl-smi, without importing torch or the vendor's package."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from bertkit_gaudi.generations import Generation, by_product

VENDOR = "0x1da3"  # of its PCI devices
GET = (
    "run the vendor's container (gaudi-docker, pytorch-installer; docker run --runtime=habana), "
    "or its installer: habanalabs-installer.sh install --type pytorch"
)
SECONDS = 5.0  # that hl-smi may take


@dataclass(frozen=True)
class Cards:
    """The cards of this host that this process may use."""

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
    """By hl-smi where it is there, else by the driver's files."""
    found = ask_tool(env) or by_files(root)
    modules = env.get("HABANA_VISIBLE_MODULES")
    if modules:
        most = len([word for word in modules.split(",") if word.strip().isdecimal()])
        return Cards(found.nodes[:most], found.generation, found.product)
    return found


def by_files(root: Path) -> Cards:
    """The kernel's accelerator devices; /dev/hl… of older drivers."""
    nodes = []
    for device in sorted((root / "sys/class/accel").glob("accel*/device")):
        if _text(device / "vendor") == VENDOR:
            node = _text(device / "numa_node")
            nodes.append(int(node) if re.fullmatch(r"-?\d+", node) else -1)
    old = [path for path in (root / "dev").glob("hl*") if re.fullmatch(r"hl\d+", path.name)]
    return Cards(tuple(nodes or [-1] * len(old)))


def ask_tool(env: Mapping[str, str]) -> Cards | None:
    """What `hl-smi` says; None where it is not there or does not answer."""
    program = shutil.which("hl-smi", path=env.get("PATH"))
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, "-Q", "index,name", "-f", "csv,noheader"],
            capture_output=True,
            text=True,
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
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
