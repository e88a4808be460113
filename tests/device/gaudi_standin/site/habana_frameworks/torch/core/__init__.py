"""mark_step and its kin, and the environment calls of inference."""

from __future__ import annotations

from typing import Any

from habana_frameworks import _sim
from habana_frameworks.torch.core import step_closure, torch_overwrites
from habana_frameworks.torch.core.step_closure import add_step_closure, iter_mark_step, mark_step

__all__ = ["add_step_closure", "iter_mark_step", "mark_step", "step_closure"]

torch_overwrites.overwrite_torch_functions()


def _noted(name: str) -> Any:
    def call(*arguments: Any, **named: Any) -> None:
        _sim.STATE.calls[name] += 1

    return call


# Inference only. The names moved between releases; each is here.
hpu_set_env = _noted("hpu_set_env")
hpu_initialize = _noted("hpu_initialize")
hpu_set_inference_env = _noted("hpu_set_inference_env")
hpu_inference_set_env = _noted("hpu_inference_set_env")
hpu_inference_initialize = _noted("hpu_inference_initialize")
