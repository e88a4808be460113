"""The Linux kernel's lists of CPUs and memory nodes, as ``0-3,8``, and small files that may be absent or damaged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from bertkit.errors import UserError
from bertkit.files.inputs import read_bytes

MOST_BYTES = 16 << 20  # of one of the kernel's files; /proc/cpuinfo of thousands of CPUs has a few MB
# At most five digits: a damaged file must not ask for a range of gigabytes (Linux stops at 8192 CPUs).
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """``0-3,8,10-11`` -> (0, 1, 2, 3, 8, 10, 11), ascending and distinct; () for an empty list.

    Raises ValueError for anything else than the kernel's list format.
    """
    numbers: set[int] = set()
    for item in text.split(",") if text.strip() else ():
        match = _RANGE.fullmatch(item.strip())
        if match is None:
            raise ValueError(f"{item.strip()!r} is neither a CPU's number nor a range")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"the range {item.strip()!r} runs backwards")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_cpu_list(cpus: Iterable[int]) -> str:
    """The inverse of `parse_cpu_list`, with ranges as long as they can be; "" for no CPU."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and ranges[-1][1] == cpu - 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in ranges)


def read_text(path: Path) -> str:
    """The file's text without white space around it; "" where it cannot be read."""
    try:
        return read_bytes(path, most=MOST_BYTES).decode("utf-8", "replace").strip()
    except UserError:
        return ""


def read_cpu_list(path: Path) -> tuple[int, ...]:
    """The list in a file; () where it is absent or malformed."""
    try:
        return parse_cpu_list(read_text(path))
    except ValueError:
        return ()
