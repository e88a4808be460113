"""What the ranks of one job say to each other: gradients summed once an update, predictions gathered."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from bertkit.errors import UserError
from bertkit.world import World


class Ranks:
    """The process group of `world`; for one process alone every method does nothing."""

    def __init__(self, world: World, collectives: str) -> None:
        self.world = world
        if world.size > 1:
            try:
                dist.init_process_group(collectives, rank=world.rank, world_size=world.size)
            except (RuntimeError, ValueError) as error:
                raise UserError(
                    f"the {world.size} processes did not find each other: {error}",
                    "check MASTER_ADDR and MASTER_PORT",
                ) from None

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over the ranks, in place, in one flat float32 buffer."""
        if self.world.size == 1:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view_as(tensor))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """(N_r, …) of each rank -> all of them, in rank order, on every rank."""
        if self.world.size == 1:
            return rows
        parts: list[np.ndarray | None] = [None] * self.world.size
        dist.all_gather_object(parts, rows)
        return np.concatenate([part for part in parts if part is not None])

    def close(self) -> None:
        if self.world.size > 1 and dist.is_initialized():
            dist.barrier()  # gloo aborts a peer that is still sending when the group goes away
            dist.destroy_process_group()
