"""How often the host waits for a device: every operator that brings values from there is counted.

Source: torch.utils._python_dispatch, as torch's own notes on extending it describe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim")


class HostWaits(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch 2.13 leaves it untyped
    """Counts while it is entered. Layers that are compiled run as they are meanwhile; they wait no less and no more."""

    def __init__(self, kind: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.kind = kind
        self.count: int = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        given = [tensor for tensor in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
        if any(tensor.device.type == self.kind for tensor in given):
            name = func.__name__.partition(".")[0]
            to_host = isinstance(found, Tensor) and found.device.type == "cpu"
            self.count += name in WAITING or to_host
        return found
