"""What the stand-in recorded. Tests read STATE; the product never imports this module.

Settings, all from the environment and read once: HPU_STANDIN_LIBRARY (the built extension), HPU_STANDIN_DEVICE (GAUDI,
GAUDI2, GAUDI3), HPU_STANDIN_DEVICE_COUNT, HPU_STANDIN_MEM (bytes), HPU_STANDIN_DEFAULT_LAZY (the mode where
PT_HPU_LAZY_MODE is unset), HPU_STANDIN_REPORT (a file for STATE at exit; with RANK set,
`.RANK` is added, or replaces %r).
"""

from __future__ import annotations

import atexit
import importlib.machinery
import importlib.util
import json
import os
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch

LAZY = os.environ.get("PT_HPU_LAZY_MODE", os.environ.get("HPU_STANDIN_DEFAULT_LAZY", "0")) != "0"
DEVICE = os.environ.get("HPU_STANDIN_DEVICE", "GAUDI2")
DEVICE_COUNT = int(os.environ.get("HPU_STANDIN_DEVICE_COUNT", "8"))
GIB = {"GAUDI": 32, "GAUDI2": 96, "GAUDI3": 128}[DEVICE]
MEMORY = int(os.environ.get("HPU_STANDIN_MEM", GIB << 30))
Listener = Callable[[str, str, list[str], int], None]


def _int64() -> bool:
    asked = os.environ.get("PT_ENABLE_INT64_SUPPORT")
    if asked is not None:
        return asked.lower() in ("1", "true", "yes", "y", "on")
    return not LAZY and DEVICE != "GAUDI"


INT64 = _int64()


@dataclass
class State:
    """Lists hold one dict an event, in order; `pending` and `implicit_h2d` come from the extension."""

    mark_steps: int = 0
    captures: int = 0
    replays: int = 0
    uploads: int = 0  # explicit copies to the device
    syncs: list[dict[str, Any]] = field(default_factory=list)  # the host waited: op, where
    compilations: list[dict[str, Any]] = field(default_factory=list)  # recipes: why, inputs, ops
    compile_calls: list[dict[str, Any]] = field(default_factory=list)  # of hpu_backend: kind, ops, inputs
    collectives: list[dict[str, Any]] = field(default_factory=list)  # op, first, bytes
    implicit: list[dict[str, Any]] = field(default_factory=list)  # host tensors in device ops: op, tensor, where
    fallbacks: Counter[str] = field(default_factory=Counter)
    fused: Counter[str] = field(default_factory=Counter)  # calls of the fused ops
    calls: Counter[str] = field(default_factory=Counter)  # of the API that changes how things run

    def reset(self) -> None:
        self.__init__()  # type: ignore[misc]

    @property
    def pending(self) -> int:
        return int(C.counts()["pending"])

    @property
    def implicit_h2d(self) -> int:
        return int(C.counts()["implicit_h2d"])

    def report(self) -> dict[str, Any]:
        names = "PT_HPU_LAZY_MODE PT_ENABLE_INT64_SUPPORT HLS_MODULE_ID RANK LOCAL_RANK WORLD_SIZE".split()
        facts = {"lazy": LAZY, "device": DEVICE, "int64": INT64, "pending": self.pending, "memory": C.memory_stats()}
        return vars(self) | facts | {"environment": {name: os.environ.get(name) for name in names}}


STATE = State()
listeners: list[Listener] = []


def where() -> str:
    """The innermost line that is neither torch's nor the stand-in's."""
    frame = sys._getframe(1)
    ours = os.path.dirname(__file__)
    theirs = os.path.dirname(torch.__file__)
    while frame is not None and frame.f_code.co_filename.startswith((ours, theirs, "<")):
        frame = frame.f_back  # type: ignore[assignment]
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}"


def heard(kind: str, name: str, detail: list[str], number: int) -> None:
    if kind == "sync":
        STATE.syncs.append({"op": name, "where": where()})
    elif kind == "compile":
        STATE.compilations.append({"why": name, "inputs": detail, "ops": number})
    elif kind == "collective":
        STATE.collectives.append({"op": name.removeprefix("c10d::"), "first": detail[0], "bytes": number})
    elif kind == "h2d":
        STATE.implicit.append({"op": name, "tensor": detail[0], "where": where()})
    elif kind == "upload":
        STATE.uploads += 1
    elif kind == "fallback":
        STATE.fallbacks[name.removeprefix("aten::")] += 1
    for listener in list(listeners):
        listener(kind, name, detail, number)


def _load() -> ModuleType:
    path = os.environ.get("HPU_STANDIN_LIBRARY")
    if not path or not os.path.isfile(path):
        raise ImportError(f"the stand-in's library is not built: HPU_STANDIN_LIBRARY={path}")
    loader = importlib.machinery.ExtensionFileLoader("_standin_C", path)
    spec = importlib.util.spec_from_file_location("_standin_C", path, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    module.configure(LAZY, not INT64, False, MEMORY, heard)
    return module


C: Any = _load()


def _write_report(path: str) -> None:
    rank = os.environ.get("RANK")
    if "%r" in path:
        path = path.replace("%r", rank or "0")
    elif rank is not None:
        path += f".{rank}"
    text = json.dumps(STATE.report())
    with open(path, "w") as file:
        file.write(text)


if "HPU_STANDIN_REPORT" in os.environ:
    atexit.register(_write_report, os.environ["HPU_STANDIN_REPORT"])
