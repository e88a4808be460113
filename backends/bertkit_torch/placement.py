"""A neutral layout as tensors on a device, with the index arithmetic that attention needs.

Legend: T tokens, N slots, G rows of a group, S its width, K places in the rows of all groups, padding included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bertkit.layouts import Group, Layout


@dataclass(frozen=True)
class Rows:
    """One attention call: its shape, and who may see whom."""

    shape: tuple[int, int]  # G, S
    mask: Tensor | None  # bool, True where attention is allowed: (G, 1, 1, S) or (G, 1, S, S); None: everywhere


@dataclass(frozen=True)
class Move:
    """How N slots become the K places of all rows, and back."""

    index: Tensor  # (K,) int64: the slot that stands in each place; padding repeats its row's first slot
    inverse: Tensor  # (N,) int64: the place of each slot
    real: Tensor  # (K, 1) bool: False on padding


@dataclass(frozen=True)
class Placed:
    """The tensors that the model reads."""

    input_ids: Tensor  # (N,)
    token_type_ids: Tensor  # (N,)
    position_ids: Tensor  # (N,)
    token_slots: Tensor  # (T,)
    rows: tuple[Rows, ...]
    move: Move | None  # None: the slots already stand in rows, one after another


def place(layout: Layout, device: torch.device) -> Placed:
    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    move = None
    if layout.kind == "unpadded" and layout.groups:
        index = np.concatenate([group.slots.reshape(-1) for group in layout.groups])
        real = np.concatenate([group.segments.reshape(-1) for group in layout.groups]) > 0
        inverse = np.empty(layout.slots, np.int64)
        inverse[index[real]] = np.flatnonzero(real)
        move = Move(tensor(index), tensor(inverse), tensor(real[:, None]))
    return Placed(
        tensor(layout.input_ids),
        tensor(layout.token_type_ids),
        tensor(layout.position_ids),
        tensor(layout.token_slots),
        tuple(_rows(group, device) for group in layout.groups),
        move,
    )


def _rows(group: Group, device: torch.device) -> Rows:
    segments = torch.from_numpy(group.segments).to(device)
    mask = None
    if not (group.segments == 1).all():
        one = group.one_segment_a_row
        mask = (segments > 0)[:, None, None, :] if one else (segments[:, :, None] == segments[:, None, :])[:, None]
    height, width = group.slots.shape
    return Rows((height, width), mask)
