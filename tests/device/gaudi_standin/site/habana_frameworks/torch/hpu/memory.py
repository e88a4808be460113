"""Memory as the device counts it. All of it is reserved at the start."""

from __future__ import annotations

from typing import Any

from habana_frameworks import _sim
from habana_frameworks.torch.hpu._utils import index_of

__all__ = """
    max_memory_allocated max_memory_reserved mem_get_info memory_allocated memory_reserved memory_stats memory_summary
    memory_usage reset_accumulated_memory_stats reset_peak_memory_stats""".split()


def memory_stats(device: Any = None) -> dict[str, int]:
    if not 0 <= index_of(device) < _sim.DEVICE_COUNT:
        raise AssertionError("Invalid device id")
    return dict(_sim.C.memory_stats())


def memory_allocated(device: Any = None) -> int:
    return memory_stats(device)["InUse"]


def max_memory_allocated(device: Any = None) -> int:
    return memory_stats(device)["MaxInUse"]


def memory_usage(device: Any = None) -> int:
    return memory_stats(device)["InUse"]


def memory_reserved(device: Any = None) -> int:
    return memory_stats(device)["Limit"]


def max_memory_reserved(device: Any = None) -> int:
    return memory_stats(device)["Limit"]


def mem_get_info(device: Any = None) -> tuple[int, int]:
    stats = memory_stats(device)
    return stats["Limit"] - stats["InUse"], stats["Limit"]


def reset_peak_memory_stats(device: Any = None) -> None:
    _sim.C.reset_peak()


def reset_accumulated_memory_stats(device: Any = None) -> None:
    _sim.C.reset_accumulated()


def memory_summary(device: Any = None) -> str:
    return "\n".join(f"{name}: {value}" for name, value in memory_stats(device).items())
