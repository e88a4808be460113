"""The library of the stand-in, and a module for its type of device as torch wants one.

From the environment: STANDIN_LIBRARY (the built extension), STANDIN_REPORT (a file for what was counted, at exit).
"""

from __future__ import annotations

import atexit
import importlib.machinery
import importlib.util
import json
import os
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import torch

MEMORY = 16 << 30
COUNTS: Counter[str] = Counter()  # sync, upload, capture, replay, and others that the library tells


def library() -> Any:
    path = os.environ["STANDIN_LIBRARY"]
    loader = importlib.machinery.ExtensionFileLoader("_standin_C", path)
    spec = importlib.util.spec_from_file_location("_standin_C", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)

    def heard(kind: str, name: str, detail: list[str], number: int) -> None:
        COUNTS[kind] += 1

    module.configure(False, False, True, MEMORY, heard)
    if "STANDIN_REPORT" in os.environ:
        atexit.register(_report, os.environ["STANDIN_REPORT"])
    return module


def _report(path: str) -> None:
    with open(path, "w") as file:
        json.dump(COUNTS, file)


def fill(module: ModuleType, c: Any, name: str) -> ModuleType:
    """`module` with what torch, and whoever uses the device, asks of a type's module."""
    generator = c.default_generator()

    def seed(number: int) -> None:
        generator.manual_seed(int(number))

    about = SimpleNamespace(name=name, total_memory=MEMORY, driver_version="1.0 (stand-in)")
    parts = {
        "_lazy_init": lambda: None,
        "_is_in_bad_fork": lambda: False,
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda where: None,
        "synchronize": lambda where=None: c.host_waits("synchronize"),
        "empty_cache": lambda: None,
        "manual_seed": seed,
        "manual_seed_all": seed,
        "get_rng_state": lambda where=None: generator.get_state(),
        "set_rng_state": lambda state, where=None: generator.set_state(state),
        "max_memory_allocated": lambda where=None: int(c.memory_stats()["MaxInUse"]),
        "mem_get_info": lambda where=None: (MEMORY - int(c.memory_stats()["InUse"]), MEMORY),
        "get_device_name": lambda where=None: name,
        "get_device_properties": lambda where=None: about,
    }
    for key, part in parts.items():
        setattr(module, key, part)
    return module


def graphs(c: Any, pool: Any = None) -> type:
    """A class of graphs over the library's tape."""

    class Graph:
        def capture_begin(self, pool: Any = None) -> None:
            c.capture_begin()

        def capture_end(self) -> None:
            COUNTS["capture"] += 1
            self.tape = c.capture_end()

        def replay(self) -> None:
            COUNTS["replay"] += 1
            self.tape.replay()

    return Graph


def enable(module: ModuleType, name: str) -> None:
    """A type of device under `name`, on torch's key for what comes from outside."""
    torch.utils.rename_privateuse1_backend(name)
    torch._register_device_module(name, module)
