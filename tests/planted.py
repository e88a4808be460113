"""Faults that tests plant in an engine."""

from __future__ import annotations

from typing import Any


def clip_each_micro_batch(engine: Any) -> None:
    """What was summed so far is clipped before the next micro-batch adds to it."""
    import torch

    learn, limit = engine.passes.learn, engine.job.optimizer.clip_norm

    def clipped_before(*arguments: Any) -> Any:
        if limit:
            torch.nn.utils.clip_grad_norm_(list(engine.parameters.values()), limit)
        return learn(*arguments)

    engine.passes.learn = clipped_before
