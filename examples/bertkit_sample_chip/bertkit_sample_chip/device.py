"""The sample chip as a torch Device: torch's CPU in static rows, with an attention kernel of its own."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import DeviceFacts, Job, UserError, World
from bertkit_torch.accelerator import Accelerator
from bertkit_torch.row_attention import InRows
from bertkit_torch.seen import Attention


class SampleChipDevice(Accelerator):
    type = "cpu"  # torch's name for yours, as in torch.device("...")
    kernel = "tiles of keys"
    peak_size = 1024  # rows of the products that measure its rate: a CPU takes long for more

    def open(self, job: Job, world: World) -> torch.device:
        self.tile = int(job.settings["tile"])
        if self.tile < 1:
            raise UserError(f"device.tile = {self.tile} is no number of keys", "use 1 or more")
        self.met: set[tuple[int, ...]] = set()
        self.notes["tile"] = f"{self.tile} keys"
        return super().open(job, world)

    def in_rows(self, allowed: Tensor, heads: int) -> Attention:
        self.met.add(tuple(allowed.shape))
        return InRows(allowed, heads, functools.partial(tiled, tile=self.tile))

    def programs(self) -> int | None:
        return len(self.met)  # as if each shape were a program

    def facts(self) -> DeviceFacts:
        return DeviceFacts("accelerator", "sample chip")

    # ---- what torch's module for the CPU lacks ----

    def seed(self, number: int) -> None:
        torch.manual_seed(number)

    def pin(self, host: Tensor) -> Tensor:
        return host

    def peak_memory(self) -> int | None:
        return None


def tiled(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, rate: float, *, tile: int) -> Tensor:
    """(R, A, S, D), some keys at a time under a running maximum (Milakov & Gimelshein 2018, arXiv:1805.02867)."""
    query = query.float() * query.shape[-1] ** -0.5
    most = query.new_full((*query.shape[:-1], 1), torch.finfo(query.dtype).min)
    total, found = torch.zeros_like(most), torch.zeros_like(query)
    parts = torch.split(key, tile, 2), torch.split(value, tile, 2), torch.split(mask, tile, 3)
    for keys, values, seen in zip(*parts, strict=True):
        scores = (query @ keys.float().transpose(2, 3)).masked_fill(~seen, torch.finfo(query.dtype).min)
        higher = torch.maximum(most, scores.detach().amax(-1, keepdim=True))
        shrunk, chances = torch.exp(most - higher), torch.exp(scores - higher)
        total = total * shrunk + chances.sum(-1, keepdim=True)
        found = found * shrunk + functional.dropout(chances, rate, training=rate > 0) @ values.float()
        most = higher
    return (found / total).to(value.dtype)
