"""The GPUs that are here, by the driver's library, else by device files and the driver's files. Nothing is imported.

Formats: NVIDIA's /proc/driver/nvidia/gpus/*/information (driver README, "proc interface"), which a container shares
with its host whatever GPUs it was given; /dev/nvidiaN, which it has only of its own; /dev/dxg under WSL2; AMD's
/sys/class/kfd/kfd/topology/nodes/*/properties (Linux kernel, amdkfd).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.plugin import read_text_if_there
from bertkit_cuda.nvml import Library, read_library

# Volta, Turing and what came before have tensor cores for fp16 alone, or none.
NO_BF16 = re.compile(
    r"\b(V100\w*|GV100|TITAN|T4|T4G|T\d{3,4}|RTX 20[678]0|Quadro|GTX|MX\d+|P100|P40|P6|P4|K\d0\w*|M\d0|M[46])\b"
)
AMD_VENDOR = 4098  # 0x1002
MODPROBE = "usr/bin/nvidia-modprobe"  # makes the device files when a GPU is first used


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    node: int = -1  # memory node; -1: not known
    uuid: str = ""  # "" where it is not known
    capability: tuple[int, int] = (0, 0)  # (0, 0): not known

    @property
    def has_bf16(self) -> bool:
        return self.capability >= (8, 0) if self.capability != (0, 0) else NO_BF16.search(self.name) is None


@dataclass(frozen=True)
class Found:
    """What is here."""

    cards: tuple[Card, ...]  # in the driver's order, which is that of the PCI bus
    driver: str = ""  # NVIDIA's; "": not known
    cuda: tuple[int, int] = (0, 0)  # the newest that the driver runs; (0, 0): not known


def find_cards(root: Path = Path("/"), library: Callable[[], Library | None] = read_library) -> Found:
    """By the driver's library where it works, else by files."""
    told = library()
    if told is None:
        return Found(tuple(read_cards(root)), driver(root))
    minors = _device_files(root)
    cards = [
        Card(one.name, _node(root, one.bus), one.uuid, one.capability)
        for one in told.devices
        if one.minor in minors or not minors  # WSL2 has none
    ]
    return Found(tuple(cards or _amd(root)), told.driver, told.cuda)


def read_cards(root: Path = Path("/")) -> list[Card]:
    """By files alone."""
    minors = _device_files(root)
    listed = [_card(root, path) for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    if minors:
        own = [card for card, minor in listed if minor in minors or minor < 0]
        return own[: len(minors)] or [Card("NVIDIA GPU") for _ in minors]
    if listed and (root / MODPROBE).exists():
        return [card for card, _ in listed]
    return _without_device_files(root) or _amd(root)


def _device_files(root: Path) -> list[int]:
    """N of each /dev/nvidiaN."""
    names = (path.name for path in (root / "dev").glob("nvidia[0-9]*"))
    return sorted(int(name.removeprefix("nvidia")) for name in names if re.fullmatch(r"nvidia[0-9]{1,4}", name))


def _without_device_files(root: Path) -> list[Card]:
    """GPUs that are reached in other ways: under WSL2, and the one of a Jetson."""
    if (root / "dev/dxg").exists() and any((root / "usr/lib/wsl/lib").glob("libcuda.so*")):
        return [Card("NVIDIA GPU under WSL2")]
    if any((root / name).exists() for name in ("dev/nvhost-gpu", "dev/nvgpu/igpu0")):
        model = _text(root / "proc/device-tree/model").strip("\0 \n")
        return [Card(model or "NVIDIA Jetson")]
    return []


def _card(root: Path, information: Path) -> tuple[Card, int]:
    """A GPU and the number of its device file; -1: not known."""
    fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", _text(information), re.MULTILINE))
    uuid = fields.get("GPU UUID", "").strip()
    minor = fields.get("Device Minor", "").strip()
    card = Card(
        fields.get("Model", "NVIDIA GPU").strip(),
        _node(root, information.parent.name.lower()),
        "" if "?" in uuid else uuid,  # question marks until the driver has first used the card
    )
    return card, int(minor) if re.fullmatch(r"[0-9]{1,4}", minor) else -1


def _node(root: Path, bus: str) -> int:
    text = _text(root / "sys/bus/pci/devices" / bus / "numa_node").strip() if bus else ""
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else -1


def _amd(root: Path) -> list[Card]:
    cards = []
    for path in sorted(
        (root / "sys/class/kfd/kfd/topology/nodes").glob("*/properties"), key=lambda p: int(p.parent.name)
    ):
        fields = dict(re.findall(r"^(\w+) ([0-9]{1,18})$", _text(path), re.MULTILINE))
        if int(fields.get("vendor_id", 0)) == AMD_VENDOR and int(fields.get("simd_count", 0)) > 0:
            version = int(fields.get("gfx_target_version", 0))  # 90402: gfx942, the last two in hexadecimal
            cards.append(Card(f"AMD gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"))
    return cards


def driver(root: Path = Path("/")) -> str:
    """The NVIDIA driver's version, "" where it is not known."""
    found = re.search(r"\b(\d{3}\.\d+(\.\d+)?)\b", _text(root / "proc/driver/nvidia/version"))
    return found[1] if found else ""


def visible(cards: list[Card], env: Mapping[str, str]) -> list[Card]:
    """Those that CUDA_VISIBLE_DEVICES leaves, in its order; the list ends at the first that does not exist."""
    text = env.get("CUDA_VISIBLE_DEVICES", env.get("HIP_VISIBLE_DEVICES"))
    if text is None:
        return cards
    chosen: list[Card] = []
    for word in text.split(","):
        found = _named(cards, word.strip())
        if found is None:
            break
        chosen.append(found)
    return chosen


def _named(cards: list[Card], word: str) -> Card | None:
    """By a number, or by a UUID, of which the beginning is enough."""
    if word.isascii() and word.isdecimal():
        return cards[int(word)] if len(word) < 10 and int(word) < len(cards) else None
    if word.startswith("GPU-"):
        found = next((card for card in cards if card.uuid.startswith(word)), None)
        if found or all(card.uuid for card in cards):
            return found
    elif not word.startswith("MIG-"):
        return None
    return Card(cards[0].name) if cards else None  # a part of some card, or some card: the files do not tell which


def _text(path: Path) -> str:
    return read_text_if_there(path)
