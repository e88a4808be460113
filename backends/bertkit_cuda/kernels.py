"""Attention's kernels on a GPU, and which one a job takes.

Legend: N slots, A heads, D head size, K stretches.
Sources: Dao 2023, arXiv:2307.08691 (flash); Rabe & Staats 2021, arXiv:2112.05682 (efficient).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from bertkit.plugin import UserError
from bertkit_torch.row_attention import StretchKernel

FLAT: tuple[str, ...] = ("flash", "efficient")  # take one row of ragged stretches
IN_ROWS: tuple[str, ...] = ("sdpa", "plain")  # take rows with a mask
LARGEST_HEAD = 256  # that flash attention takes
GRAIN = 8  # heads are multiples of it, or both kernels refuse them
NEEDS: Mapping[str, str] = {
    "flash": f"bf16 or fp16, heads of {GRAIN}, {2 * GRAIN}, … {LARGEST_HEAD} and compute capability 8.0 (or ROCm)",
    "efficient": f"heads of a multiple of {GRAIN} and compute capability 7.0",
}


def flash(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, rate: float) -> Tensor:
    """(N, A, D), half precision, from Ampere on. `torch.nn.attention.varlen` is the same kernel without dropout."""
    found: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, bounds, bounds, longest, longest, rate, False, False
    )[0]
    return found


def efficient(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, rate: float) -> Tensor:
    """(N, A, D), any precision, from Volta on."""
    one = (part.unsqueeze(0) for part in (query, key, value))
    found: Tensor = torch.ops.aten._efficient_attention_forward(
        *one, None, bounds, bounds, longest, longest, rate, 0, torch.is_grad_enabled()
    )[0]
    return found[0]


STRETCHES: Mapping[str, StretchKernel] = {"flash": flash, "efficient": efficient}


@dataclass(frozen=True)
class Wanted:
    """What the choice of a kernel depends on."""

    asked: str  # auto, or a kernel's name
    layout: str  # auto, unpadded or packed
    half: bool  # whether attention computes in bf16 or fp16
    capability: tuple[int, int]  # of the card; (0, 0): not NVIDIA's, whose flash kernel is tried before it is taken
    head_size: int


def candidates(wanted: Wanted) -> tuple[str, ...]:
    """The kernels that may be taken, best known first. Raises UserError where what was asked for cannot be."""
    even = wanted.head_size % GRAIN == 0
    known = wanted.capability >= (8, 0) or wanted.capability == (0, 0)
    can_flash = even and wanted.half and wanted.head_size <= LARGEST_HEAD and known
    usable = {"flash": can_flash, "efficient": even and wanted.capability >= (7, 0), "sdpa": True, "plain": True}
    fitting = {"unpadded": FLAT, "packed": IN_ROWS}.get(wanted.layout, FLAT + IN_ROWS)
    if wanted.asked != "auto":
        if not usable[wanted.asked]:
            raise UserError(
                f"device.attention={wanted.asked} needs {NEEDS[wanted.asked]}; here are {_described(wanted)}",
                "use --set device.attention=auto",
            )
        if wanted.asked not in fitting:
            raise UserError(
                f"device.attention={wanted.asked} does not take the layout {wanted.layout}",
                f"use --set model.layout=auto, or one of {', '.join(fitting)}",
            )
        return (wanted.asked,)
    found = tuple(name for name in fitting if usable[name] and name != "plain")
    if not found:
        raise UserError(f"no kernel for unpadded batches takes {_described(wanted)}", "use --set model.layout=packed")
    return found


def _described(wanted: Wanted) -> str:
    major, minor = wanted.capability
    card = f"capability {major}.{minor}" if major else "another type of device"
    return f"{'half precision' if wanted.half else 'fp32'}, heads of {wanted.head_size}, {card}"


def fastest(seconds: Mapping[str, float]) -> tuple[str, str]:
    """(kernel, why) of those that were timed."""
    name = min(seconds, key=lambda kernel: seconds[kernel])
    if len(seconds) == 1:
        return name, "the only one that fits"
    said = ", ".join(f"{kernel} {1e3 * spent:.2f} ms" for kernel, spent in sorted(seconds.items(), key=lambda e: e[1]))
    return name, f"the fastest of {said}"
