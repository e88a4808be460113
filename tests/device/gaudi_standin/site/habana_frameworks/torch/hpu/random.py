"""The device's own random stream, of device 0 alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from habana_frameworks import _sim
from habana_frameworks.torch.hpu._utils import index_of

__all__ = """
    get_rng_state get_rng_state_all initial_seed manual_seed manual_seed_all seed seed_all set_rng_state
    set_rng_state_all""".split()

default_generators: list[torch.Generator] = [_sim.C.default_generator()]


def get_rng_state(device: Any = "hpu") -> torch.Tensor:
    if index_of(device) != 0:
        raise RuntimeError("hpu get_rng_state supports only device 0")
    return default_generators[0].get_state()


def set_rng_state(new_state: torch.Tensor, device: Any = "hpu") -> None:
    if index_of(device) != 0:
        raise RuntimeError("hpu set_rng_state supports only device 0")
    default_generators[0].set_state(new_state)


def get_rng_state_all() -> list[torch.Tensor]:
    return [get_rng_state(0)]


def set_rng_state_all(new_states: Sequence[torch.Tensor]) -> None:
    if len(new_states) != 1:
        raise RuntimeError("hpu set_rng_state_all supports only states len of 1")
    set_rng_state(new_states[0], 0)


def manual_seed(seed: int) -> torch.Generator:
    return default_generators[0].manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    manual_seed(seed)


def seed() -> int:
    return default_generators[0].seed()


def seed_all() -> None:
    seed()


def initial_seed() -> int:
    return default_generators[0].initial_seed()
