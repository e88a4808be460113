"""A plug-in of torch by the name of a vendor's, whose device is the stand-in."""

from __future__ import annotations

from types import ModuleType


def _autoload() -> None:
    import standin_device

    c = standin_device.library()
    module = standin_device.fill(ModuleType("torch.npu"), c, "Stand-in 910")
    standin_device.enable(module, "npu")
