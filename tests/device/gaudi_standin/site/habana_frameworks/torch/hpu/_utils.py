"""Which index a device's name, number or object means."""

from __future__ import annotations

from typing import Any

import torch


def index_of(device: Any) -> int:
    if device is None:
        return 0
    if isinstance(device, int):
        return device
    return torch.device(device).index or 0
