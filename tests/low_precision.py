"""How far an update's gradients in bf16 lie from those in fp32, tensor by tensor."""

from __future__ import annotations

import numpy as np

from bertkit.conformance.fixtures import example_batch, first_moments, job, train, with_settings
from bertkit.engine.interface import Backend, Precision

# Of a tensor's norm. Sums over many rows that are float32 leave 1 to 2 %: biases, whose gradients are nothing else, and
# LayerNorm's scale and shift; sums in bf16 were seen 4 to 21 % off.
NEAR = 0.03


def furthest_gradient(backend: Backend, sequences: int = 96) -> tuple[float, str]:
    """(the largest difference as a share of the tensor's norm, which tensor)."""
    found = {precision: _gradients(backend, precision, sequences) for precision in ("fp32", "bf16")}
    apart = [
        (float(np.linalg.norm(found["bf16"][name] - exact) / np.linalg.norm(exact)), name)
        for name, exact in found["fp32"].items()
        if not name.endswith("key.bias")  # nothing follows from it, so its gradient is roundings alone
    ]
    return max(apart)


def _gradients(backend: Backend, precision: Precision, sequences: int) -> dict[str, np.ndarray]:
    engine = with_settings(backend, job("classification", precision=precision))
    train(engine, example_batch("classification", sequences), "classification", 1)
    return dict(first_moments(engine))
