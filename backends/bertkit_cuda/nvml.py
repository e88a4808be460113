"""What NVIDIA's management library tells of the GPUs: it comes with the driver, in containers and under WSL2 too.

Loaded through ctypes: nothing is imported, no context is made on a GPU.

Source: NVML API reference (nvmlDeviceGetCount_v2 counts GPUs that this process may not open, too).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

NAMES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
LENGTH = 96  # bytes of a text


@dataclass(frozen=True)
class Device:
    """One GPU that this process may open."""

    name: str
    uuid: str
    minor: int  # of its device file; -1: it has none
    bus: str  # as 0000:1b:00.0; "": not known
    capability: tuple[int, int]


@dataclass(frozen=True)
class Library:
    """What the library says."""

    driver: str
    cuda: tuple[int, int]  # the newest that the driver runs; (0, 0): not known
    devices: tuple[Device, ...]


def read_library(load: Callable[[str], Any] = ctypes.CDLL) -> Library | None:
    """None where it is not here or does not work."""
    for name in NAMES:
        try:
            library = load(name)
            if library.nvmlInit_v2() == 0:
                try:
                    return _read(library)
                finally:
                    library.nvmlShutdown()
        except (OSError, AttributeError):  # not here, or too old to have one of the functions
            continue
    return None


def _read(library: Any) -> Library:
    count, version = ctypes.c_uint(), ctypes.c_int()
    if library.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        count.value = 0
    if library.nvmlSystemGetCudaDriverVersion_v2(ctypes.byref(version)):
        version.value = 0
    cuda = version.value // 1000, version.value % 1000 // 10
    found = (_device(library, number) for number in range(count.value))
    driver = _text(library.nvmlSystemGetDriverVersion)
    return Library(driver, cuda, tuple(device for device in found if device is not None))


def _device(library: Any, number: int) -> Device | None:
    """None where this process may not open it."""
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(number), ctypes.byref(handle)):
        return None
    minor, major, lesser = ctypes.c_uint(), ctypes.c_int(), ctypes.c_int()
    if library.nvmlDeviceGetMinorNumber(handle, ctypes.byref(minor)):
        minor = ctypes.c_uint(0xFFFFFFFF)
    if library.nvmlDeviceGetCudaComputeCapability(handle, ctypes.byref(major), ctypes.byref(lesser)):
        major, lesser = ctypes.c_int(0), ctypes.c_int(0)
    return Device(
        name=_text(library.nvmlDeviceGetName, handle) or "NVIDIA GPU",
        uuid=_text(library.nvmlDeviceGetUUID, handle),
        minor=-1 if minor.value == 0xFFFFFFFF else minor.value,
        bus=_bus(library, handle),
        capability=(major.value, lesser.value),
    )


class _PciInfo(ctypes.Structure):
    """nvmlPciInfo_t."""

    _fields_ = (
        ("busIdLegacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pciDeviceId", ctypes.c_uint),
        ("pciSubSystemId", ctypes.c_uint),
        ("busId", ctypes.c_char * 32),
    )


def _bus(library: Any, handle: ctypes.c_void_p) -> str:
    info = _PciInfo()
    if library.nvmlDeviceGetPciInfo_v3(handle, ctypes.byref(info)):
        return ""
    return f"{info.domain:04x}:{info.bus:02x}:{info.device:02x}.0"


def _text(function: Callable[..., int], *given: Any) -> str:
    text = ctypes.create_string_buffer(LENGTH)
    return "" if function(*given, text, ctypes.c_uint(LENGTH)) else text.value.decode(errors="replace")
