"""How far results may lie from the reference, and why; and how a check says that it does not apply."""

from __future__ import annotations

from collections.abc import Mapping

from bertkit.engine.interface import Backend, Precision

# On logits of about 1, through two layers: fp32 differs by the order of its sums; tf32 keeps 10 bits of the factors'
# mantissas, fp16 10 of every result, bf16 7.
LOGITS: Mapping[Precision, float] = {"fp32": 2e-5, "tf32": 5e-3, "bf16": 5e-2, "fp16": 1e-2}
# On gradients, of the largest in each tensor's share of the whole: sums over tokens average the roundings of each, and
# the backward pass rounds as often again as the forward.
GRADIENTS: Mapping[Precision, float] = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 1e-1, "fp16": 2e-2}
# On weights after ten updates at a rate of 1e-3: an update's direction is a quotient, whose error is that of its parts.
WEIGHTS = 2e-6
WAITS = 0  # of the host for the device within an update


class Skip(Exception):
    """The backend does not claim what the check is about."""


def must_compute(backend: Backend) -> None:
    if not backend.capabilities.computes:
        raise Skip("this backend computes nothing")


def must_train(backend: Backend, numbers: bool = True) -> None:
    """`numbers`: and compute something."""
    if numbers:
        must_compute(backend)
    if not backend.capabilities.trains:
        raise Skip("this backend only answers")
