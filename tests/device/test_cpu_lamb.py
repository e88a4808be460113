"""LAMB on the CPU against a float64 reference from the paper, over 100 updates, and against the multi-tensor one."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

import numpy as np
import pytest

from bertkit.engine.interface import OptimizerSpec

torch = pytest.importorskip("torch")
import bertkit_cpu.lamb  # noqa: E402
from bertkit_cpu.device import CpuDevice  # noqa: E402
from bertkit_cpu.lamb import BlockedLamb  # noqa: E402
from bertkit_torch.gradients import Gradients  # noqa: E402
from bertkit_torch.lamb import Lamb  # noqa: E402

RATE = 2e-3
UPDATES = 100
SHAPES = {  # more than a chunk, one with an odd rest; the test's chunk has 64 elements
    "dense.weight": (13, 17),
    "dense.bias": (13,),
    "zeros.weight": (6, 5),  # starts at 0, so that its norm is 0 in the first update
    "silent.weight": (4, 8),  # never has a gradient
    "LayerNorm.weight": (70,),
    "empty.bias": (9,),  # starts at 0 and never has a gradient: both norms are 0
}
SPECS = [
    OptimizerSpec(algorithm="lamb", trust_ratio=ratio, bias_correction=corrected, epsilon=1e-6, weight_decay=decay)
    for ratio, corrected, decay in itertools.product(("decayed", "all"), (True, False), (0.01, 0.0))
]


def name_of(spec: OptimizerSpec) -> str:
    return f"{spec.trust_ratio}{'-corrected' if spec.bias_correction else ''}-decay-{spec.weight_decay}"


def start() -> dict[str, np.ndarray]:
    stream = np.random.default_rng(0)
    zero = ("zeros.weight", "empty.bias")
    made = {n: stream.normal(0, 0.1, shape) * (n not in zero) for n, shape in SHAPES.items()}
    return {name: array.astype(np.float32) for name, array in made.items()}


def gradients() -> Iterator[dict[str, np.ndarray]]:
    """Half of the updates have a global norm above 1, so that they are clipped; some have no gradient at all."""
    stream = np.random.default_rng(1)
    for number in range(UPDATES):
        size = 0.0 if number % 10 == 9 else 0.3 if number % 2 else 0.01
        silent = ("silent.weight", "empty.bias")
        yield {n: stream.normal(0, size * (n not in silent), s).astype(np.float32) for n, s in SHAPES.items()}


def reference(spec: OptimizerSpec) -> dict[str, np.ndarray]:
    """You et al. 2019, algorithm 2, in float64, after clipping to the global norm."""
    weights = {name: array.astype(np.float64) for name, array in start().items()}
    first = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    second = {name: np.zeros(shape) for name, shape in SHAPES.items()}
    clipped = 0
    for step, found in enumerate(gradients(), 1):
        norm = np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in found.values()))
        clipped += norm > spec.clip_norm
        for name, weight in weights.items():
            g = found[name].astype(np.float64) * min(1.0, spec.clip_norm / (norm + 1e-6))
            first[name] = spec.beta1 * first[name] + (1 - spec.beta1) * g
            second[name] = spec.beta2 * second[name] + (1 - spec.beta2) * g**2
            m = first[name] / (1 - spec.beta1**step) if spec.bias_correction else first[name]
            v = second[name] / (1 - spec.beta2**step) if spec.bias_correction else second[name]
            decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else spec.weight_decay
            update = m / (np.sqrt(v) + spec.epsilon) + decay * weight
            norms = np.linalg.norm(weight), np.linalg.norm(update)
            ratio = norms[0] / norms[1] if min(norms) > 0 and (decay or spec.trust_ratio == "all") else 1.0
            weight -= RATE * ratio * update
    assert UPDATES / 3 < clipped < UPDATES * 2 / 3
    return weights


def follow(kind: type[Lamb], spec: OptimizerSpec) -> tuple[dict[str, np.ndarray], Lamb]:
    parameters = {name: torch.nn.Parameter(torch.from_numpy(array.copy())) for name, array in start().items()}
    made, device, gathered = kind(parameters, spec), CpuDevice(), Gradients(parameters)
    for found in gradients():
        for name, parameter in parameters.items():
            parameter.grad = torch.from_numpy(found[name].copy())
        device.clip(gathered, spec.clip_norm)
        made.step(RATE)
        gathered.clear()
    return {name: parameter.detach().numpy() for name, parameter in parameters.items()}, made


def worst(wanted: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> float:
    return max(float(np.abs(wanted[name] - found[name]).max()) for name in SHAPES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertkit_cpu.lamb, "CHUNK", 64)


@pytest.mark.parametrize("kind", [BlockedLamb, Lamb])
@pytest.mark.parametrize("spec", SPECS, ids=name_of)
def test_it_follows_the_paper_over_100_updates(kind: type[Lamb], spec: OptimizerSpec) -> None:
    found, _ = follow(kind, spec)
    wanted = reference(spec)
    moved = worst(start(), wanted)
    assert moved > 0.01  # what is compared has gone far
    assert worst(wanted, found) < 2e-6


def test_both_kinds_keep_the_same_state() -> None:
    """So that a run may go on with the other one."""
    states = [follow(kind, SPECS[0])[1].state_dict() for kind in (BlockedLamb, Lamb)]
    assert list(states[0]) == list(states[1])
    for name, array in states[0].items():
        np.testing.assert_allclose(array, states[1][name], rtol=2e-5, atol=1e-8, err_msg=name)


def test_the_cpu_takes_it_for_lamb_alone() -> None:
    parameters = {"dense.weight": torch.nn.Parameter(torch.ones(2, 2))}
    assert isinstance(CpuDevice().optimizer(parameters, SPECS[0]), BlockedLamb)
    assert not isinstance(CpuDevice().optimizer(parameters, OptimizerSpec()), Lamb)


def test_an_update_that_is_left_out_changes_nothing() -> None:
    _, made = follow(BlockedLamb, SPECS[0])
    before = made.state_dict() | {n: p.detach().numpy().copy() for n, p in made.parameters.items()}
    for parameter in made.parameters.values():
        parameter.grad = torch.full_like(parameter, float("inf"))
    made.step(RATE, left_out=torch.tensor(1.0))
    after = made.state_dict() | {n: p.detach().numpy().copy() for n, p in made.parameters.items()}
    assert all(np.array_equal(before[name], after[name]) for name in before)
    for parameter in made.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    made.step(RATE, left_out=torch.tensor(0.0))
    assert float(made.count) == UPDATES + 1


def test_norms_of_long_tensors_are_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where torch's norm in float32 is off by more than 1e-4: the ratio of word embeddings, and the clipping."""
    monkeypatch.undo()
    torch.manual_seed(0)
    weight, slope = torch.randn(8000, 768) * 0.02, torch.randn(8000, 768)
    true = float(slope.double().norm())
    assert abs(float(torch._foreach_norm([slope])[0]) / true - 1) > 1e-4
    parameter = torch.nn.Parameter(weight.clone())
    parameter.grad = slope.clone()
    device, spec = CpuDevice(), SPECS[0]
    assert float(device.clip(Gradients({"word.weight": parameter}), 1.0)) / true == pytest.approx(1, abs=1e-6)
    assert float(parameter.grad.double().norm()) == pytest.approx(1, abs=1e-6)
    parameter.grad = slope.clone()
    device.optimizer({"word.weight": parameter}, spec).step(1.0)
    w = weight.double()
    update = torch.sign(slope.double()) + spec.weight_decay * w  # the first update is the sign, but for epsilon
    found = ((w - parameter.detach().double()) * update).sum() / (update * update).sum()
    assert float(found / (w.norm() / update.norm())) == pytest.approx(1.0, abs=1e-5)
