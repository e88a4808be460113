"""An optimizer shared by the ranks: each keeps the moments of some parameters, updates these, and hands them on.

Whole tensors are dealt, as LAMB's ratio needs a tensor's norm; so the largest one is the least that a rank can have.
They travel in bundles, so that no second copy of the model is needed: weights from device to device where the ranks
have such, else through host memory, as moments do.

Source: stage 1 of Rajbhandari et al. 2019, arXiv:1910.02054.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import zip_longest

import numpy as np
import torch
from torch import Tensor, nn

from bertkit.plugin import Arrays, OptimizerSpec, UserError, World, read_array
from bertkit_torch.buckets import cut
from bertkit_torch.optimizer import MOMENTS, Optimizer

BUNDLE = 2_000_000  # elements that a rank sends at once, or one tensor if that is larger
Make = Callable[[Mapping[str, nn.Parameter], OptimizerSpec], Optimizer]
Share = Callable[[Sequence[Sequence[Tensor]]], None]  # `Ranks.share`


class Sharded:
    """`make`'s optimizer over this rank's share. Every method but `step` and `load_state_dict` is a collective."""

    clips = False  # no rank has the norm of all gradients from its share

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        spec: OptimizerSpec,
        make: Make,
        world: World,
        gather: Callable[[np.ndarray], np.ndarray],
        share: Share | None = None,
    ) -> None:
        """`share`: how weights go from device to device; None: through host memory."""
        if world.size > len(parameters):
            raise UserError(
                f"{world.size} processes cannot share {len(parameters)} tensors", "leave optimizer.shard at false"
            )
        self.parameters = dict(parameters)
        self.gather, self.share = gather, share
        self.shares = deal({name: p.numel() for name, p in parameters.items()}, world.size)
        self.rank = world.rank
        self.own = {name: parameters[name] for name in self.shares[world.rank]}
        self.inner = make(self.own, dataclasses.replace(spec, clip_norm=0.0, shard=False))

    def step(self, learning_rate: float, left_out: Tensor | None = None) -> None:
        """Only this rank's share changes: `spread` must follow."""
        self.inner.step(learning_rate, left_out)

    @torch.no_grad()
    def spread(self) -> None:
        """Every rank takes the others' weights."""
        if self.share is not None:
            of_ranks = ([self.parameters[name] for name in share] for share in self.shares)
            for turn in zip_longest(*(stretches(tensors, BUNDLE) for tensors in of_ranks), fillvalue=()):
                self.share(turn)
            return
        own = {name: parameter.detach().cpu().numpy() for name, parameter in self.own.items()}
        for name, array in self._everyones(own):
            if name not in self.own:
                self.parameters[name].copy_(torch.from_numpy(array))

    def state_dict(self) -> Arrays:
        """Whole, on every rank."""
        own = self.inner.state_dict()
        whole: Arrays = {"adam.step": own["adam.step"]}
        for moment in MOMENTS.values():
            of_own = {name: own[f"{moment}.{name}"] for name in self.own}
            found = {name: array.copy() for name, array in self._everyones(of_own)}
            whole |= {f"{moment}.{name}": found[name] for name in self.parameters}
        return whole

    def load_state_dict(self, arrays: Mapping[str, np.ndarray]) -> None:
        for moment in MOMENTS.values():  # all, so that what lacks one stops every rank
            for name, parameter in self.parameters.items():
                read_array(arrays, f"{moment}.{name}", tuple(parameter.shape))
        self.inner.load_state_dict(arrays)

    def _everyones(self, own: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
        """The arrays of all ranks, of which each gives its own. To be read to the end: it is a collective."""
        of_ranks = [bundles(share, {name: self.parameters[name].numel() for name in share}) for share in self.shares]
        for turn in zip_longest(*of_ranks, fillvalue=()):
            mine = [own[name].reshape(-1) for name in turn[self.rank]]
            names = [name for bundle in turn for name in bundle]
            found = self.gather(np.concatenate([np.empty(0, np.float32), *mine]))
            ends = np.cumsum([self.parameters[name].numel() for name in names])[:-1]
            for name, array in zip(names, np.split(found, ends), strict=True):
                yield name, array.reshape(tuple(self.parameters[name].shape))


def deal(sizes: Mapping[str, int], ranks: int) -> list[tuple[str, ...]]:
    """Names for each rank: the largest first, each to the rank that has least. The same on every rank."""
    shares: list[list[str]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = loads.index(min(loads))
        shares[rank].append(name)
        loads[rank] += sizes[name]
    return [tuple(share) for share in shares]


def bundles(share: tuple[str, ...], sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The names of a share in groups of about BUNDLE elements."""
    groups = cut([sizes[name] for name in share], BUNDLE)
    return [tuple(share[number] for number in sorted(group.parts)) for group in groups]


def stretches(tensors: Sequence[Tensor], most: int) -> list[list[Tensor]]:
    """Tensors end to end, cut every `most` elements: flat views, in groups of together `most`, the last of the rest."""
    groups: list[list[Tensor]] = []
    room = 0
    for tensor in tensors:
        rest = tensor.detach().view(-1)
        while len(rest):
            if not room:
                groups.append([])
                room = most
            groups[-1].append(rest[:room])
            room, rest = room - len(groups[-1][-1]), rest[len(groups[-1][-1]) :]
    return groups
