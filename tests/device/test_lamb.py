"""LAMB and, without trust ratios, AdamW: against a float64 reference written from the papers, and torch's own kernel.

Sources: You et al. 2019, arXiv:1904.00962, algorithm 2; Loshchilov & Hutter 2019, arXiv:1711.05101, algorithm 2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from bertkit.engine.interface import OptimizerSpec

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bertkit_torch.gradients import FlatGradients, Gradients  # noqa: E402
from bertkit_torch.lamb import Lamb, trust_ratios  # noqa: E402
from bertkit_torch.optimizer import AdamW  # noqa: E402

STEPS = 100
SHAPES = {
    "layer.weight": (6, 5),
    "layer.bias": (5,),
    "LayerNorm.weight": (7,),
    "one.weight": (1,),
    "zeros.weight": (4, 3),  # begins at zero: its ratio is 1 in the first step
    "still.weight": (3, 3),  # its gradient is zero throughout
    "nothing.bias": (2,),  # begins at zero, and its gradient is zero throughout
}
ALGORITHMS = [("adamw", "decayed"), ("lamb", "decayed"), ("lamb", "all")]
SPECS = [
    OptimizerSpec(0.9, 0.999, 1e-6, decay, corrected, clip, algorithm, ratio)  # type: ignore[arg-type]
    for (algorithm, ratio), corrected, clip, decay in itertools.product(
        ALGORITHMS, (True, False), (0.0, 1.0), (0.01, 0.0)
    )
]
Tensors = dict[str, np.ndarray]


def named(spec: OptimizerSpec) -> str:
    corrected = "corrected" if spec.bias_correction else "as it is"
    return f"{spec.algorithm} {spec.trust_ratio} {corrected} clip {spec.clip_norm:g} decay {spec.weight_decay:g}"


def start() -> Tensors:
    stream = np.random.default_rng(5)
    begun = {name: stream.normal(0, 0.5, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return begun | {name: np.zeros(SHAPES[name], np.float32) for name in ("zeros.weight", "nothing.bias")}


def gradients_at(step: int) -> Tensors:
    """Small and large by turns, so that some steps are clipped and some are not."""
    stream = np.random.default_rng((7, step))
    scale = (0.05, 3.0, 0.4)[step % 3]
    made = {name: stream.normal(0.1, scale, shape).astype(np.float32) for name, shape in SHAPES.items()}
    return made | {name: np.zeros(SHAPES[name], np.float32) for name in ("still.weight", "nothing.bias")}


def rate_at(step: int) -> float:
    return 1e-2 * min(step / 10, 1.0) * (1 - step / (STEPS + 1))


def reference(spec: OptimizerSpec) -> Tensors:
    """The weights after all steps, in float64."""
    weights = {name: array.astype(np.float64) for name, array in start().items()}
    first, second = ({name: np.zeros(array.shape) for name, array in weights.items()} for _ in range(2))
    for step in range(1, STEPS + 1):
        gradients = {name: array.astype(np.float64) for name, array in gradients_at(step).items()}
        norm = np.sqrt(sum(float((g**2).sum()) for g in gradients.values()))
        clip = min(1.0, spec.clip_norm / (norm + 1e-6)) if spec.clip_norm else 1.0
        for name, w in weights.items():
            g = gradients[name] * clip
            m = first[name] = spec.beta1 * first[name] + (1 - spec.beta1) * g
            v = second[name] = spec.beta2 * second[name] + (1 - spec.beta2) * g**2
            if spec.bias_correction:
                m, v = m / (1 - spec.beta1**step), v / (1 - spec.beta2**step)
            decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else spec.weight_decay
            update = m / (np.sqrt(v) + spec.epsilon) + decay * w
            of_weights, of_update = np.linalg.norm(w), np.linalg.norm(update)
            scaled = spec.algorithm == "lamb" and (decay > 0 or spec.trust_ratio == "all")
            ratio = of_weights / of_update if scaled and of_weights > 0 and of_update > 0 else 1.0
            weights[name] = w - rate_at(step) * ratio * update
    return weights


def parameters() -> dict[str, nn.Parameter]:
    return {name: nn.Parameter(torch.from_numpy(array)) for name, array in start().items()}


def run(
    optimizer: Lamb | AdamW, made: Mapping[str, nn.Parameter], held: Gradients, clip: float, steps: int = STEPS
) -> Tensors:
    for step in range(1, steps + 1):
        given = gradients_at(step)
        for name, gradient in zip(made, held.complete(), strict=True):
            gradient.copy_(torch.from_numpy(given[name]))
        held.clip(clip)
        optimizer.step(rate_at(step))
        held.clear()
    return {name: parameter.detach().numpy() for name, parameter in made.items()}


def gap(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """The largest difference of a weight, by the largest weight of its tensor."""
    return max(float(np.abs(one[name] - other[name]).max() / max(1e-3, np.abs(other[name]).max())) for name in SHAPES)


CLOSE = 1.5e-6  # nothing but float32's rounding


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_a_hundred_steps_are_those_of_the_paper(spec: OptimizerSpec) -> None:
    made = parameters()
    found = run(Lamb(made, spec), made, FlatGradients(made), spec.clip_norm)
    assert gap(found, reference(spec)) < CLOSE
    assert np.array_equal(found["nothing.bias"], np.zeros(2))


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.algorithm == "adamw"], ids=named)
def test_without_ratios_it_is_torchs_fused_adamw(spec: OptimizerSpec) -> None:
    """The moments too, so that a checkpoint of one goes on under the other."""
    ours, theirs = parameters(), parameters()
    one, other = Lamb(ours, spec), AdamW(theirs, spec)
    found = run(one, ours, FlatGradients(ours), spec.clip_norm)
    wanted = run(other, theirs, FlatGradients(theirs), spec.clip_norm)
    assert gap(found, wanted) < CLOSE
    for name, array in other.state_dict().items():
        if name != "adam.step":  # without bias correction torch's counts nothing
            np.testing.assert_allclose(one.state_dict()[name], array, rtol=2e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("spec", SPECS, ids=named)
def test_it_goes_on_where_it_stopped(spec: OptimizerSpec) -> None:
    made, again = parameters(), parameters()
    first, second = Lamb(made, spec), Lamb(again, spec)
    run(first, made, Gradients(made), spec.clip_norm, 5)
    for name, parameter in again.items():
        parameter.data.copy_(made[name])
    second.load_state_dict(first.state_dict())
    found = run(second, again, Gradients(again), spec.clip_norm, 5)
    wanted = run(first, made, Gradients(made), spec.clip_norm, 5)
    assert all(np.array_equal(found[name], wanted[name]) for name in SHAPES)


@pytest.mark.parametrize("spec", SPECS[::5], ids=named)
def test_an_update_that_is_left_out_changes_nothing_and_is_not_counted(spec: OptimizerSpec) -> None:
    made = parameters()
    optimizer = Lamb(made, spec)
    held = FlatGradients(made)
    for left_out in (1.0, 0.0, 1.0):
        before = {name: array.copy() for name, array in optimizer.state_dict().items()} | {
            name: parameter.detach().clone().numpy() for name, parameter in made.items()
        }
        held.flat.fill_(float("nan") if left_out else 0.1)
        optimizer.step(1e-2, torch.tensor(left_out))
        after = optimizer.state_dict() | {name: parameter.detach().numpy() for name, parameter in made.items()}
        same = [np.array_equal(before[name], after[name]) for name in before]
        assert all(same) if left_out else not any(same)


def test_the_ratio_is_that_of_the_norms_and_one_where_either_is_zero() -> None:
    weights = [torch.tensor(w) for w in ([3.0, 4.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0])]
    updates = [torch.tensor(u) for u in ([0.0, 2.0], [1.0, 1.0], [0.0, 0.0], [0.0, 0.0])]
    assert trust_ratios(weights, updates).tolist() == [2.5, 1.0, 1.0, 1.0]


def test_the_three_ways_differ() -> None:
    """Else the reference above could not tell them apart."""
    found = [reference(dataclasses.replace(SPECS[0], algorithm=a, trust_ratio=r)) for a, r in ALGORITHMS]  # type: ignore[arg-type]
    for one, other in itertools.combinations(found, 2):
        assert gap(one, other) > 1e-2
