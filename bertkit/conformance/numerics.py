"""Numbers against a reference: fp32 on the CPU, the optimizers in float64 from their papers.

Legend: B sequences, T tokens, C outputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from bertkit.conformance.fixtures import (
    RATE,
    example_batch,
    first_moments,
    gap,
    job,
    train,
    trained_heads,
    with_settings,
)
from bertkit.conformance.tolerance import GRADIENTS, LOGITS, WEIGHTS, Skip, must_compute, must_train
from bertkit.engine.interface import Arrays, Backend, Engine, LossScaling, OptimizerSpec, Precision
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit.model.config import HeadKind
from bertkit.model.parameters import decays

REFERENCE = "cpu"  # the backend that others are compared with


def check_reference(backend: Backend) -> str:
    """Logits and gradients of every head, layout and precision lie near those of the CPU in fp32, padded."""
    must_compute(backend)
    try:
        reference = find(REFERENCE)
    except UserError:
        raise Skip("the CPU backend, which is the reference, is not installed") from None
    with_settings(backend, job("classification")).close()  # first of all: some frameworks look for devices only once
    worst: dict[Precision, tuple[float, float]] = {}
    for kind in backend.capabilities.heads:
        batch = example_batch(kind)
        wanted = with_settings(reference, job(kind, "padded"))
        learned = kind in trained_heads(backend)
        logits, gradients = wanted.predict(batch), _gradients(wanted, kind, learned)
        for precision in backend.probe().precisions:
            for layout in backend.capabilities.layouts:
                engine = with_settings(backend, job(kind, layout, precision=precision))
                found = _apart(logits, engine.predict(batch)), _share(gradients, _gradients(engine, kind, learned))
                what = f"{kind}, {layout}, {precision}"
                assert found[0] <= LOGITS[precision], f"{what}: logits differ by {found[0]:.2e}"
                assert found[1] <= GRADIENTS[precision], f"{what}: gradients differ by {found[1]:.1%} of the largest"
                before = worst.get(precision, (0.0, 0.0))
                worst[precision] = max(before[0], found[0]), max(before[1], found[1])
    said = (f"{p} {logit:.0e} in logits, {share:.0e} in gradients" for p, (logit, share) in worst.items())
    return f"from the CPU's fp32, all heads and layouts: {'; '.join(said)}"


def _apart(wanted: Arrays, found: Arrays) -> float:
    """The largest difference; of the largest value where that is over 1, as hidden states are."""
    return gap(wanted, found) / max(1.0, *(float(np.abs(array).max(initial=0.0)) for array in wanted.values()))


def _gradients(engine: Engine, kind: HeadKind, learned: bool) -> Arrays:
    """None where the head is not trained."""
    if not learned:
        return {}
    train(engine, example_batch(kind), kind, 1)
    return first_moments(engine)


def _share(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    """The largest difference, of the largest gradient."""
    largest = max((float(np.abs(array).max(initial=0.0)) for array in wanted.values()), default=1.0)
    return gap(wanted, found) / largest


def check_optimizer(backend: Backend) -> str:
    """Ten updates equal AdamW in float64 from the papers, with and without bias correction, clipping included."""
    must_train(backend)
    specs = [OptimizerSpec(bias_correction=kept, epsilon=1e-6, clip_norm=0.5) for kept in (True, False)]
    return f"10 updates follow AdamW in float64 to {_follow(backend, specs):.1e}"


def check_lamb(backend: Backend) -> str:
    """Ten updates equal LAMB in float64, with the trust ratio where there is weight decay and everywhere."""
    must_train(backend)
    if "lamb" not in backend.capabilities.optimizers:
        raise Skip("this backend has no LAMB")
    spec = OptimizerSpec(epsilon=1e-6, algorithm="lamb")
    specs = [dataclasses.replace(spec, trust_ratio="all"), dataclasses.replace(spec, bias_correction=False)]
    return f"10 updates follow LAMB in float64 to {_follow(backend, specs):.1e}"


def _follow(backend: Backend, specs: list[OptimizerSpec]) -> float:
    worst = 0.0
    for spec in specs:
        engine = with_settings(backend, dataclasses.replace(job("classification"), optimizer=spec))
        worst = max(worst, _follow_one(engine, spec))
    assert worst <= WEIGHTS, f"weights differ from the reference by {worst:.2e}"
    return worst


def _follow_one(engine: Engine, spec: OptimizerSpec) -> float:
    """The engine's gradients (from its first moments) through a float64 optimizer, against the engine's weights."""
    batch = example_batch("classification")
    weights = {name: array.astype(np.float64) for name, array in engine.weights().items()}
    first = {name: np.zeros_like(array) for name, array in weights.items()}
    second = {name: np.zeros_like(array) for name, array in weights.items()}
    for step in range(1, 11):
        train(engine, batch, "classification", 1, first=step)
        moments = first_moments(engine)
        for name, weight in weights.items():
            new = moments[f"adam.first.{name}"].astype(np.float64)
            gradient = (new - spec.beta1 * first[name]) / (1 - spec.beta1)
            first[name] = new
            second[name] = spec.beta2 * second[name] + (1 - spec.beta2) * gradient**2
            scale1 = 1 - spec.beta1**step if spec.bias_correction else 1.0
            scale2 = 1 - spec.beta2**step if spec.bias_correction else 1.0
            decay = spec.weight_decay if decays(name) else 0.0
            change = (new / scale1) / (np.sqrt(second[name] / scale2) + spec.epsilon) + decay * weight
            weight -= RATE * _trust(spec, decay, weight, change) * change
    return gap(weights, engine.weights())


def _trust(spec: OptimizerSpec, decay: float, weight: np.ndarray, change: np.ndarray) -> float:
    """LAMB's ratio of norms; 1 for AdamW."""
    if spec.algorithm == "adamw" or (decay == 0.0 and spec.trust_ratio == "decayed"):
        return 1.0
    of_weight, of_change = float(np.linalg.norm(weight)), float(np.linalg.norm(change))
    return of_weight / of_change if of_weight > 0 and of_change > 0 else 1.0


def check_loss_scaling(backend: Backend) -> str:
    """fp16: an update that overflows changes nothing but the scale; once that is low enough, learning goes on."""
    must_train(backend)
    if "fp16" not in backend.probe().precisions:
        raise Skip("this device does not compute in fp16")
    batch = example_batch("classification")
    scaling = LossScaling(initial=2.0**60, patience=99)
    engine = with_settings(backend, dataclasses.replace(job("classification", precision="fp16"), loss_scaling=scaling))
    before = engine.weights()
    train(engine, batch, "classification", 3)
    moved = gap(before, engine.weights())
    assert moved == 0.0, f"updates that overflowed moved weights by {moved:.1e}"
    losses = train(engine, batch, "classification", 90, first=4)
    assert losses[-1] < 0.5 * losses[0], f"loss {losses[0]:.3f} -> {losses[-1]:.3f} after the overflows"
    return f"3 overflows moved nothing; then loss {losses[0]:.2f} -> {losses[-1]:.2f}"


def check_precisions(backend: Backend) -> str:
    """Each precision that this device does well stays near fp32, and learns with fp32 masters."""
    must_train(backend)
    batch = example_batch("classification")
    reference = with_settings(backend, job("classification")).predict(batch)["logits"]
    said = []
    for precision in backend.probe().precisions:
        engine = with_settings(backend, job("classification", precision=precision))
        difference = float(np.abs(engine.predict(batch)["logits"] - reference).max())
        assert difference <= LOGITS[precision], f"{precision} logits differ by {difference:.2e}"
        losses = train(engine, batch, "classification", 40)
        assert losses[-1] < 0.5 * losses[0], f"{precision}: loss {losses[0]:.3f} -> {losses[-1]:.3f}"
        assert all(array.dtype == np.float32 for array in engine.weights().values()), f"{precision} masters not fp32"
        said.append(f"{precision} {difference:.1e}")
    return "logits from fp32: " + ", ".join(said)
