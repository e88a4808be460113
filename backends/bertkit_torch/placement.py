"""A neutral layout as tensors on a device, with the index arithmetic that attention needs.

Legend: T tokens, N slots, G rows of a group, S its width, K slots of all groups together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bertkit.layouts import Group, Layout


@dataclass(frozen=True)
class Rows:
    """One attention call: which slots stand in its rows, and who may see whom."""

    index: Tensor  # (G*S,) int64 into N
    real: Tensor  # (G*S,) bool, False on padding
    mask: Tensor | None  # bool, True where attention is allowed: (G, 1, 1, S) or (G, 1, S, S); None: everywhere
    shape: tuple[int, int]  # G, S


@dataclass(frozen=True)
class Placed:
    """The tensors that the model reads."""

    input_ids: Tensor  # (N,)
    token_type_ids: Tensor  # (N,)
    position_ids: Tensor  # (N,)
    token_slots: Tensor  # (T,)
    rows: tuple[Rows, ...]
    in_order: bool  # the groups' slots, one after another, are exactly 0 … N-1: nothing to gather

    @cached_property
    def inverse(self) -> Tensor:
        """(N,) where each slot stands among the K slots of all groups."""
        index = torch.cat([rows.index for rows in self.rows])
        real = torch.cat([rows.real for rows in self.rows]).nonzero().squeeze(1)
        inverse = torch.empty_like(self.input_ids)
        inverse[index[real]] = real
        return inverse


def place(layout: Layout, device: torch.device) -> Placed:
    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(device)

    in_order = layout.kind != "unpadded"
    return Placed(
        tensor(layout.input_ids),
        tensor(layout.token_type_ids),
        tensor(layout.position_ids),
        tensor(layout.token_slots),
        tuple(_rows(group, device) for group in layout.groups),
        in_order,
    )


def _rows(group: Group, device: torch.device) -> Rows:
    segments = torch.from_numpy(group.segments).to(device)
    if bool((group.segments == 1).all()):
        mask = None
    elif group.one_segment_a_row:
        mask = (segments > 0)[:, None, None, :]
    else:
        mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    height, width = group.slots.shape
    index = torch.from_numpy(group.slots).to(device).reshape(-1)
    return Rows(index, (segments > 0).reshape(-1), mask, (height, width))
