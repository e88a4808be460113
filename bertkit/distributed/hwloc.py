"""A machine from an hwloc file (``lstopo --of xml``): to plan for a machine that is not this one, and to test."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from bertkit.distributed.topology import Core, Machine, machine_of
from bertkit.errors import UserError
from bertkit.files.inputs import read_bytes

MOST_BYTES = 64 << 20  # a machine of thousands of CPUs takes a few MB
MOST_WORDS = 3200  # of a set: 102,400 CPUs, as many as five digits number
_WORD = re.compile(r"(0x)?[0-9a-fA-F]{1,8}|")
_DOCTYPES = ("hwloc.dtd", "hwloc2.dtd")
_CURE = "make it with `lstopo --of xml FILE` of hwloc 2 or newer"


def from_hwloc(path: Path) -> Machine:
    """The machine that `path` describes: Package, Core and PU by os_index, memory nodes by their cpuset.

    CPUs outside of the machine's `allowed_cpuset` are left out. Raises UserError where the file is absent, no XML,
    of hwloc 1, holds declarations of its own, or describes no usable CPU.
    """
    content = read_bytes(path, _CURE, MOST_BYTES)
    try:
        found = _read(content)
    except (ValueError, LookupError, expat.ExpatError) as error:  # LookupError: an encoding that there is none of
        raise UserError(f"{path} is no hwloc file: {error}", _CURE) from None
    groups: dict[tuple[int, int], list[int]] = {}
    for cpu, socket, core in found.cpus:
        if found.allowed is None or found.allowed >> cpu & 1:
            groups.setdefault((socket, core), []).append(cpu)
    if not groups:
        raise UserError(f"{path} describes no CPU that may be used", _CURE)
    cores = [Core(tuple(sorted(cpus)), socket, found.node_of(cpus[0])) for (socket, _), cpus in groups.items()]
    whole = sum(len(core.cpus) for core in cores) == len(found.cpus)
    return machine_of(cores, source=f"hwloc file {path.name}", whole=whole)


@dataclass
class _Found:
    """What the file says so far; `stack` holds (type, os_index) of the objects that are open."""

    version: str = ""
    allowed: int | None = None  # a bit for each CPU
    cpus: list[tuple[int, int, int]] = field(default_factory=list)  # (PU, socket, serial number of the core)
    nodes: list[tuple[int, int]] = field(default_factory=list)  # (cpuset, memory node)
    stack: list[tuple[str, int]] = field(default_factory=list)
    cores: int = 0

    def node_of(self, cpu: int) -> int:
        """The memory node of a CPU: of several, the one with the fewest CPUs; -1: none is known."""
        return min(((mask.bit_count(), node) for mask, node in self.nodes if mask >> cpu & 1), default=(0, -1))[1]

    def enclosing(self, kind: str) -> int:
        return next((number for name, number in reversed(self.stack) if name == kind), -1)

    def open(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "topology":
            self.version = attributes.get("version", "1")
        kind = attributes.get("type", "") if tag == "object" else ""
        number = _number(attributes["os_index"]) if kind in ("Package", "PU", "NUMANode") else -1
        if kind == "Core":  # its os_index repeats in every package
            number = self.cores = self.cores + 1
        if kind == "Machine" and "allowed_cpuset" in attributes:
            self.allowed = parse_mask(attributes["allowed_cpuset"])
        elif kind == "NUMANode":
            self.nodes.append((parse_mask(attributes.get("cpuset", "0x0")), number))
        elif kind == "PU":
            core = self.enclosing("Core")
            # A PU without a core is one; negative numbers keep the two apart.
            self.cpus.append((number, self.enclosing("Package"), core if core >= 0 else -1 - number))
        self.stack.append((kind, number))

    def close(self, tag: str) -> None:
        self.stack.pop()


def _read(content: bytes) -> _Found:
    """Raises ValueError, KeyError or ExpatError for what is no hwloc 2 file."""
    found = _Found()
    parser = expat.ParserCreate()

    def doctype(name: str, system: str | None, public: str | None, has_declarations: int) -> None:
        if has_declarations or public or system not in _DOCTYPES:
            raise ValueError("its document type is not hwloc's")

    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = found.open
    parser.EndElementHandler = found.close
    parser.Parse(content, True)
    major = found.version.split(".")[0]
    if not (major.isascii() and major.isdecimal()) or int(major[:9]) < 2:
        raise ValueError("it is not of hwloc 2")
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5):
        raise ValueError(f"{text[:20]!r} is no number of a CPU, package or node")
    return int(text)


def parse_mask(text: str) -> int:
    """``0x00000001,0x0000ffff`` -> bits; words of 32, the highest first, an empty word is 0. Raises ValueError."""
    mask, words = 0, text.split(",")
    if len(words) > MOST_WORDS:  # each shift copies what there is
        raise ValueError(f"a set of {len(words):,} words of CPUs")
    for word in words:
        if not _WORD.fullmatch(word):
            raise ValueError(f"{text[:20]!r} is no set of CPUs")
        mask = mask << 32 | int(word or "0", 16)
    return mask
