"""Which generation this is, and the tools that look for changing shapes."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import Any

import torch

from habana_frameworks import _sim


class synDeviceType(Enum):
    synDeviceGaudi = "GAUDI"
    synDeviceGaudi2 = "GAUDI2"
    synDeviceGaudi3 = "GAUDI3"


def _get_device_type() -> synDeviceType:
    return synDeviceType(_sim.DEVICE)


def _is_fp16_supported() -> bool:
    return _sim.DEVICE != "GAUDI"


def _shapes(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return tuple((k, _shapes(v)) for k, v in sorted(value.items()))
    return tuple(_shapes(v) for v in value) if isinstance(value, list | tuple) else None


def data_dynamicity(dataloader: Iterable[Any]) -> dict[Any, int]:
    """How often each set of shapes comes up in a loader."""
    found: dict[Any, int] = {}
    for batch in dataloader:
        found[_shapes(batch)] = found.get(_shapes(batch), 0) + 1
    return found
