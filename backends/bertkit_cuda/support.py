"""Whether the installed torch can run on the GPUs that are here, as far as that is known without importing it.

Sources: CUDA Toolkit release notes, "CUDA Toolkit and Minimum Required Driver Versions" (within a major version an
older driver runs a newer toolkit); pytorch's .ci/manywheel/build_cuda.sh, TORCH_CUDA_ARCH_LIST of each toolkit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from bertkit_cuda.cards import Card

MINIMUM_DRIVER = {11: 450, 12: 525, 13: 580}  # CUDA's major version -> the driver's branch
# pytorch's own builds: from this toolkit on -> the oldest and the newest architecture they have code for
ANY = (99, 0)  # the newest have intermediate code, too
BUILDS = (((13, 0), (7, 5), ANY), ((12, 8), (7, 0), ANY), ((11, 8), (5, 0), (9, 0)))
GET = "https://pytorch.org/get-started"


def driver_too_old(toolkit: str, driver: str, cuda: tuple[int, int]) -> str:
    """In words; "": it is not, or nobody knows. `cuda`: the newest that the driver runs, (0, 0) where not known."""
    major = int(found[1]) if (found := re.match(r"(\d{1,4})", toolkit)) else 0
    if cuda[0]:
        if cuda[0] >= major:
            return ""
        runs = f"runs CUDA up to {cuda[0]}.{cuda[1]}"
    else:
        branch = int(found[1]) if (found := re.match(r"(\d{1,6})\.", driver)) else 0
        if not branch or branch >= MINIMUM_DRIVER.get(major, 0):
            return ""
        runs = f"is older than CUDA {major} needs"
    least = f"driver {MINIMUM_DRIVER[major]} or newer" if major in MINIMUM_DRIVER else "a newer driver"
    return (
        f"driver {driver or 'of an unknown version'} {runs}, but torch is built for CUDA {toolkit}; install "
        f"{least}, or a torch for an older CUDA as {GET}/previous-versions shows"
    )


def architecture_missing(cards: Iterable[Card], toolkit: str, official: bool) -> str:
    """In words; "": no card is known to have none. `official`: whether the build is pytorch's own."""
    version = tuple(int(part) for part in re.findall(r"\d{1,4}", toolkit)[:2])
    known = next(((low, high) for since, low, high in BUILDS if version >= since), None)
    if known is None or not official:
        return ""
    for card in cards:
        if card.capability != (0, 0) and not known[0] <= card.capability <= (known[1][0], 9):
            newer = card.capability > known[1]
            limit = f"up to {_dotted(known[1])}" if newer else f"from {_dotted(known[0])} on"
            return (
                f"{card.name} has compute capability {_dotted(card.capability)}, but torch for CUDA {toolkit} has code "
                f"{limit}; install a torch for {'a newer' if newer else 'an older'} CUDA as {GET} shows"
            )
    return ""


def has_code_for(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """By `torch.cuda.get_arch_list()`: code of the same major version runs, intermediate code of any older one."""
    for name in architectures:
        kind, _, number = name.partition("_")
        digits = re.match(r"\d{2,3}", number)
        if digits is None:
            continue
        own = int(digits[0][:-1]), int(digits[0][-1])
        if own <= capability and (kind == "compute" or own[0] == capability[0]):
            return True
    return not architectures


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"
