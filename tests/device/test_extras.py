"""Class weights, smoothing, the focal loss, layer-wise rates and frozen layers: against torch's own, in all layouts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from bertkit.conformance.fixtures import MODEL, RATE, example_batch, first_moments, gap, job, train, with_settings
from bertkit.engine.interface import LossSpec, OptimizerSpec
from bertkit.model.parameters import depth_of, frozen_names
from static_backend import StaticBackend

torch = pytest.importorskip("torch")
functional = torch.nn.functional

WEIGHTS = (0.5, 1.0, 3.0, 2.0, 0.25)


def cpu() -> Any:
    from bertkit_cpu import CpuBackend

    return CpuBackend()


def spec(kind: str, **changed: float) -> LossSpec:
    outputs = {"classification": 3, "multilabel": 4, "tokens": 5}.get(kind, 0)
    return LossSpec(class_weights=WEIGHTS[:outputs], **changed)  # type: ignore[arg-type]


def wanted(kind: str, logits: Any, batch: Any, loss: LossSpec) -> Any:
    """The loss from torch's own functions, in float64."""
    weights = torch.tensor(loss.class_weights, dtype=torch.float64) if loss.class_weights else None
    if kind == "multilabel":
        labels = torch.tensor(batch["labels"], dtype=torch.float64)
        each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none", pos_weight=weights)
        if loss.focal_gamma:
            shares = torch.sigmoid(logits)
            each = each * (labels * (1 - shares) + (1 - labels) * shares) ** loss.focal_gamma
        return each.mean()
    labels = torch.tensor(batch["token_labels" if kind == "tokens" else "labels"])
    real = labels >= 0
    logits, labels = logits[real], labels[real]
    if loss.focal_gamma:
        each = functional.cross_entropy(logits, labels, weights, reduction="none")
        right = torch.softmax(logits, -1).gather(1, labels[:, None])[:, 0]
        return (each * (1 - right) ** loss.focal_gamma).mean()
    total = functional.cross_entropy(logits, labels, weights, reduction="sum", label_smoothing=loss.label_smoothing)
    return total / len(labels)


CASES = [
    ("classification", {}),
    ("classification", {"label_smoothing": 0.2}),
    ("classification", {"focal_gamma": 2.0}),
    ("tokens", {"label_smoothing": 0.1}),
    ("tokens", {"focal_gamma": 0.5}),
    ("multilabel", {}),
    ("multilabel", {"focal_gamma": 1.5}),
]


@pytest.mark.parametrize(("kind", "changed"), CASES)
def test_the_loss_is_torchs(kind: Any, changed: dict[str, float]) -> None:
    loss, batch = spec(kind, **changed), example_batch(kind)
    ours = with_settings(cpu(), dataclasses.replace(job(kind), loss=loss))
    logits = torch.tensor(ours.predict(batch)["logits"], dtype=torch.float64)
    assert train(ours, batch, kind, 1)[0] == pytest.approx(float(wanted(kind, logits, batch, loss)), abs=2e-6)


@pytest.mark.parametrize(("kind", "changed"), [CASES[0], CASES[4], CASES[6]])
def test_the_split_and_the_layout_change_nothing(kind: Any, changed: dict[str, float]) -> None:
    """Gradients of the classifier too are those of autograd over the formula, in rows of one width among others."""
    loss, batch = spec(kind, **changed), example_batch(kind)
    found = []
    for backend, layout, splits in (
        (cpu(), "unpadded", 1),
        (cpu(), "unpadded", 3),
        (cpu(), "padded", 1),
        (cpu(), "packed", 1),
        (StaticBackend(), "packed", 2),
    ):
        engine = with_settings(backend, dataclasses.replace(job(kind, layout), loss=loss))
        found.append((train(engine, batch, kind, 1, splits)[0], first_moments(engine)))
    for value, moments in found[1:]:
        assert value == pytest.approx(found[0][0], abs=2e-6)
        assert gap(moments, found[0][1]) < 2e-6


def test_focal_loss_of_what_is_certain_has_a_slope() -> None:
    """Below a gamma of 1 the power's own slope has no end there."""
    from bertkit_torch.losses import Rule

    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    rule = Rule.of(LossSpec(focal_gamma=0.5), torch.device("cpu"))
    rule.classes(logits, torch.tensor([0, 0])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() > 0.5


@pytest.mark.parametrize("backend", ["ragged", "static"])
def test_frozen_parameters_stay_and_have_no_moments(backend: str) -> None:
    plain = job("classification")
    frozen = frozen_names(plain.model, plain.head, 1)
    made = cpu() if backend == "ragged" else StaticBackend()
    engine = with_settings(made, dataclasses.replace(plain, frozen=frozen))
    whole = with_settings(made, plain)
    batch = example_batch("classification")
    losses = [train(one, batch, "classification", 2) for one in (engine, whole)]
    assert losses[0][0] == losses[1][0]
    after = engine.weights()
    assert all(np.array_equal(after[name], plain.weights[name]) for name in frozen)
    assert all(not np.array_equal(after[name], plain.weights[name]) for name in after if name not in frozen)
    state = engine.state_dict()
    assert {name.removeprefix("adam.first.") for name in state if name.startswith("adam.first.")} == set(after) - set(
        frozen
    )
    again = with_settings(made, dataclasses.replace(plain, frozen=frozen))
    again.load_state_dict(state)
    assert train(again, batch, "classification", 1, first=3) == train(engine, batch, "classification", 1, first=3)


@pytest.mark.parametrize("algorithm", ["adamw", "lamb"])
@pytest.mark.parametrize("backend", ["ragged", "static"])
def test_rates_decay_with_depth(algorithm: Any, backend: str) -> None:
    """One update from the same gradients moves each layer in proportion to its factor."""
    made = cpu() if backend == "ragged" else StaticBackend()
    plain = dataclasses.replace(job("classification"), optimizer=OptimizerSpec(algorithm=algorithm, weight_decay=0.01))
    batch, moved = example_batch("classification"), []
    for decay in (1.0, 0.5):
        wanted = dataclasses.replace(plain, optimizer=dataclasses.replace(plain.optimizer, layer_decay=decay))
        engine = with_settings(made, wanted)
        train(engine, batch, "classification", 1)
        moved.append({name: array - plain.weights[name] for name, array in engine.weights().items()})
    layers = MODEL.num_hidden_layers
    for name, step in moved[0].items():
        factor = 0.5 ** (layers + 1 - depth_of(name, layers))
        assert np.abs(moved[1][name] - factor * step).max() < 1e-6, name
    assert np.abs(moved[0]["classifier.weight"]).max() > RATE / 100
