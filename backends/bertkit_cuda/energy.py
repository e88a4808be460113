"""Energy of one GPU, by NVIDIA's management library where its Python binding (nvidia-ml-py) is installed.

Source: NVML API reference, nvmlDeviceGetTotalEnergyConsumption: millijoules since the driver was loaded, from Volta on.
"""

from __future__ import annotations

from typing import Any


def joules(uuid: str) -> float | None:
    """Since the driver was loaded; None where the library, the card or the counter is not there."""
    try:
        import pynvml
    except ImportError:
        return None
    library: Any = pynvml
    try:
        library.nvmlInit()
        handle = library.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
        return float(library.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except library.NVMLError:
        return None
