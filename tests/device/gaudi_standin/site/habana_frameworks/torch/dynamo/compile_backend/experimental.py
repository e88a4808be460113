"""Compiled autograd, as far as a program can see the switch."""

from __future__ import annotations

from habana_frameworks import _sim


def enable_compiled_autograd() -> None:
    import torch._dynamo

    _sim.STATE.calls["enable_compiled_autograd"] += 1
    torch._dynamo.config.optimize_ddp = "python_reducer"
