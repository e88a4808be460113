"""`torch.hpu`: one device a process. There is no `empty_cache`."""

# ruff: noqa: F401, F403, F405 - the package is the sum of its files
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import torch

from habana_frameworks import _sim
from habana_frameworks.torch.hpu._utils import index_of
from habana_frameworks.torch.hpu.memory import *
from habana_frameworks.torch.hpu.metrics import metric_global, metric_localcontext, metrics_dump
from habana_frameworks.torch.hpu.random import *
from habana_frameworks.torch.hpu.streams import Event, Stream, current_stream, default_stream, set_stream, stream
from habana_frameworks.torch.utils.internal import is_lazy

if is_lazy():
    from habana_frameworks.torch.hpu.graphs import *

HABANA_VISIBLE_MODULES_VAR = "HABANA_VISIBLE_MODULES"
HLS_MODULE_ID_VAR = "HLS_MODULE_ID"
_initialized = False
_dynamic_shapes = os.environ.get("PT_HPU_ENABLE_REFINE_DYNAMIC_SHAPES", "0") in ("1", "true", "True")


def init() -> None:
    global _initialized
    if not _initialized:
        _initialized = True
        from torch.utils.checkpoint import DefaultDeviceType

        DefaultDeviceType.set_device_type("hpu")


_lazy_init = init


def is_initialized() -> bool:
    return _initialized


def is_available() -> bool:
    return _sim.DEVICE_COUNT > 0


def device_count() -> int:
    return _sim.DEVICE_COUNT


def _is_in_bad_fork() -> bool:
    return False


def get_device_name(device: Any = None) -> str:
    init()
    if not 0 <= index_of(device) < device_count():
        raise AssertionError("Invalid device id")
    return _sim.DEVICE


def get_device_capability(device: Any = None) -> str:
    return "1.24.0"


def get_device_properties(device: Any = None) -> str:
    total = memory_stats()["Limit"]
    return f"(sramBaseAddress=0, dramSize={total}, deviceType={_sim.DEVICE})"


def current_device() -> int:
    init()
    return 0


def synchronize() -> None:
    init()
    _sim.C.host_waits("synchronize")


def set_device(device: Any) -> None:
    """Moves nothing. It names the card by HLS_MODULE_ID, once, before any tensor."""
    index = index_of(device)
    given = os.environ.get(HABANA_VISIBLE_MODULES_VAR)
    modules = [int(m) for m in given.split(",")] if given else list(range(device_count()))
    current = int(os.environ.get(HLS_MODULE_ID_VAR, "-1"))
    if index > len(modules) - 1:
        raise AssertionError(f"Trying to open device with idx={index} when only {modules} are available")
    if current >= 0:
        assert current in modules, f"module_id={current} which was previously set is none of {modules}"
        return
    if given is None and device_count() < 8:
        assert index == 0, f"As {HABANA_VISIBLE_MODULES_VAR} is not provided, the only supported device idx is 0."
        return
    os.environ[HLS_MODULE_ID_VAR] = str(modules[index])


class device:
    """The context manager of that name; there is one device, so it only checks."""

    def __init__(self, device: Any) -> None:
        asked, module = index_of(device), int(os.environ.get(HLS_MODULE_ID_VAR, "-1"))
        if asked not in (0, module):
            raise AssertionError(f"Requested device_id={asked} is different from env_device_id={module}")

    def __enter__(self) -> None:
        return None

    def __exit__(self, *exc: object) -> None:
        return None


def set_autocast_hpu_enabled(enabled: bool) -> None:
    torch.set_autocast_enabled("hpu", enabled)


def is_autocast_hpu_enabled() -> bool:
    return torch.is_autocast_enabled("hpu")


def set_autocast_hpu_dtype(dtype: torch.dtype) -> None:
    torch.set_autocast_dtype("hpu", dtype)


def get_autocast_hpu_dtype() -> torch.dtype:
    return torch.get_autocast_dtype("hpu")


# What torch.amp asks of a device's module.
set_autocast_enabled, is_autocast_enabled = set_autocast_hpu_enabled, is_autocast_hpu_enabled
set_autocast_dtype, get_autocast_dtype = set_autocast_hpu_dtype, get_autocast_hpu_dtype


def get_amp_supported_dtype() -> list[torch.dtype]:
    return [torch.bfloat16] if _sim.DEVICE == "GAUDI" else [torch.bfloat16, torch.float16]


def is_bf16_supported() -> bool:
    return is_available()


def enable_dynamic_shape() -> None:
    global _dynamic_shapes
    _dynamic_shapes = True
    _sim.STATE.calls["enable_dynamic_shape"] += 1


def disable_dynamic_shape() -> None:
    global _dynamic_shapes
    _dynamic_shapes = False
    _sim.STATE.calls["disable_dynamic_shape"] += 1


def get_dynamic_shape_status() -> bool:
    return _dynamic_shapes


def enable_recompute_sdp(enabled: bool) -> None:
    _sim.C.enable_recompute_sdp(enabled)


def recompute_sdp_enabled() -> bool:
    return bool(_sim.C.recompute_sdp_enabled())


@contextlib.contextmanager
def sdp_kernel(enable_recompute: bool = True) -> Iterator[dict[str, Any]]:
    before = recompute_sdp_enabled()
    enable_recompute_sdp(enable_recompute)
    try:
        yield {}
    finally:
        enable_recompute_sdp(before)
