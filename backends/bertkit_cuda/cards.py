"""The GPUs that the driver shows, read from its files: nothing is imported and no program is started.

Formats: NVIDIA's /proc/driver/nvidia/gpus/*/information (driver README, "proc interface"); AMD's
/sys/class/kfd/kfd/topology/nodes/*/properties (Linux kernel, amdkfd).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bertkit.plugin import read_text_if_there

# Volta, Turing and what came before have tensor cores for fp16 alone, or none.
NO_BF16 = re.compile(
    r"\b(V100\w*|GV100|TITAN|T4|T4G|T\d{3,4}|RTX 20[678]0|Quadro|GTX|MX\d+|P100|P40|P6|P4|K\d0\w*|M\d0|M[46])\b"
)
AMD_VENDOR = 4098  # 0x1002


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    node: int = -1  # memory node; -1: not known
    uuid: str = ""  # "" where it is not known

    @property
    def has_bf16(self) -> bool:
        return NO_BF16.search(self.name) is None


def read_cards(root: Path = Path("/")) -> list[Card]:
    """In the driver's order, which is that of the PCI bus."""
    found = [_card(root, path) for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))]
    return found or _amd(root)


def _card(root: Path, information: Path) -> Card:
    fields = dict(re.findall(r"^([^:\n]+):[ \t]*(.*)$", _text(information), re.MULTILINE))
    node = _text(root / "sys/bus/pci/devices" / information.parent.name.lower() / "numa_node").strip()
    uuid = fields.get("GPU UUID", "").strip()
    return Card(
        fields.get("Model", "NVIDIA GPU").strip(),
        int(node) if re.fullmatch(r"-?[0-9]{1,9}", node) else -1,
        "" if "?" in uuid else uuid,  # question marks until the driver has first used the card
    )


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
