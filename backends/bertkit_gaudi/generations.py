"""What differs between the generations of the card, in one table.

Sources: the vendor's support matrices and the release notes of its software up to 1.24.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """One kind of card."""

    name: str  # as torch.hpu.get_device_name() says it
    product: str  # how the names of its boards begin, as hl-smi says them
    memory: int  # GiB
    bf16_flops: float | None  # the vendor's dense peak, FLOP/s; None: not stated
    fp16: bool
    fp8: bool
    last_software: str  # release, "" where it is still supported


GENERATIONS = (
    Generation("GAUDI", "HL-20", 32, None, False, False, "1.21"),
    Generation("GAUDI2", "HL-22", 96, 432e12, True, True, ""),
    Generation("GAUDI3", "HL-32", 128, 1835e12, True, True, ""),
)


def by_name(name: str) -> Generation | None:
    return next((one for one in GENERATIONS if one.name == name), None)


def by_product(name: str) -> Generation | None:
    return next((one for one in GENERATIONS if name.startswith(one.product)), None)


def supports(generation: Generation, release: str) -> bool:
    """Whether this release of the software still runs the card; releases that cannot be read count as new enough."""
    if not generation.last_software:
        return True
    try:
        asked, last = (tuple(int(part) for part in text.split(".")[:2]) for text in (release, generation.last_software))
    except ValueError:
        return True
    return asked <= last
