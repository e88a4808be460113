"""Where the gradients of an update are gathered: each in a tensor of its own, or all in one flat buffer.

Legend: P parameters, G elements of all gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Gradients:
    """A tensor for each parameter, given back after the update: the least memory."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self.names = list(parameters)
        self.parameters = list(parameters.values())

    @property
    def flat(self) -> Tensor | None:
        """(G,) all of them, where they are one buffer."""
        return None

    def complete(self) -> list[Tensor]:
        """All of them; zeros where this rank had no sequence, since it meets the others all the same."""
        for parameter in self.parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def multiply(self, factor: Tensor) -> None:
        torch._foreach_mul_(self.complete(), factor)

    def clip(self, most: float) -> Tensor:
        """Scale all so that their global L2 norm is `most` at the most, 0: any; returns the norm before that."""
        return nn.utils.clip_grad_norm_(self.parameters, most if most > 0 else float("inf"))

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Whatever is added meanwhile is taken away again."""
        before = [None if p.grad is None else p.grad.clone() for p in self.parameters]
        yield
        for parameter, gradient in zip(self.parameters, before, strict=True):
            parameter.grad = gradient

    def clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None


class FlatGradients(Gradients):
    """Views of one float32 buffer that stays where it is: summed over the ranks as a whole."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__(parameters)
        first = self.parameters[0]
        sizes = [parameter.numel() for parameter in self.parameters]
        self._buffer = torch.zeros(sum(sizes), dtype=torch.float32, device=first.device)
        for parameter, view in zip(self.parameters, torch.split(self._buffer, sizes), strict=True):
            parameter.grad = view.view_as(parameter)

    @property
    def flat(self) -> Tensor:
        return self._buffer

    def multiply(self, factor: Tensor) -> None:
        self._buffer.mul_(factor)

    def clip(self, most: float) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(self._buffer)
        if most > 0:
            self._buffer.mul_((most / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @contextmanager
    def kept(self) -> Iterator[None]:
        before = self._buffer.clone()
        yield
        self._buffer.copy_(before)

    def clear(self) -> None:
        self._buffer.zero_()


def norms(gradients: list[Tensor]) -> Tensor:
    """(P,) the L2 norm of each."""
    return torch.stack(torch._foreach_norm(gradients))
