"""The contract: layouts, splits and resumes change nothing, and every head learns.

Legend: B sequences, T tokens, C outputs.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bertkit.conformance.fixtures import (
    RATE,
    example_batch,
    first_moments,
    gap,
    job,
    part,
    train,
    trained_heads,
    with_settings,
)
from bertkit.conformance.tolerance import LOGITS, must_compute, must_train
from bertkit.engine.interface import Arrays, Backend, OptimizerSpec, Update, label_counts


def check_card(backend: Backend) -> str:
    """The card answers without the hardware, and the probe does not raise."""
    probe = backend.probe()
    assert backend.capabilities.precisions, "the capabilities list no precision"
    assert probe.detail, "the probe says nothing"
    return probe.detail


def check_layouts(backend: Backend) -> str:
    """Every layout gives the same logits, losses and weights, for every head."""
    must_compute(backend)
    layouts = backend.capabilities.layouts
    worst = 0.0
    for kind in backend.capabilities.heads:
        batch = example_batch(kind)
        seen: list[tuple[Arrays, Arrays]] = []
        for layout in layouts:
            engine = with_settings(backend, job(kind, layout))
            logits = engine.predict(batch)
            trained = kind in trained_heads(backend)
            if trained:
                train(engine, batch, kind, 1)
            seen.append((logits, first_moments(engine) if trained else {}))
        worst = max(
            worst,
            *(gap(seen[0][0], other[0]) for other in seen),
            *(gap(seen[0][1], other[1]) for other in seen),
        )
    assert worst <= LOGITS["fp32"], f"layouts differ by {worst:.2e}"
    return (
        f"{', '.join(layouts)} agree to {worst:.1e} in logits and gradients of {len(backend.capabilities.heads)} heads"
    )


def check_split(backend: Backend) -> str:
    """One batch at once equals the same batch in four micro-batches."""
    must_train(backend)
    worst = 0.0
    for kind in trained_heads(backend):
        batch = example_batch(kind)
        whole, split = (with_settings(backend, job(kind)) for _ in range(2))
        train(whole, batch, kind, 1)
        train(split, batch, kind, 1, splits=4)
        worst = max(worst, gap(first_moments(whole), first_moments(split)))
    assert worst <= 2e-6, f"gradients of 1 x 12 and 4 x 3 sequences differ by {worst:.2e}"
    return f"gradients of 1 x 12 and 4 x 3 sequences agree to {worst:.1e}"


def check_empty_micro_batch(backend: Backend) -> str:
    """A micro-batch without sequences, as the last batch of an epoch can leave on a rank, changes nothing."""
    must_train(backend)
    batch = example_batch("classification")
    with_empty, without = (with_settings(backend, job("classification")) for _ in range(2))
    members, nobody = np.arange(12), np.empty(0, np.int64)
    update = Update(1, (part(batch, members), part(batch, nobody)), {"sequences": 12})
    with_empty.train_step(update, RATE)
    train(without, batch, "classification", 1)
    difference = gap(with_empty.weights(), without.weights())
    assert difference == 0.0, f"weights differ by {difference:.2e}"
    return "an empty micro-batch changes nothing"


def check_learns(backend: Backend) -> str:
    """Every head's loss on one batch falls to less than half in 40 updates."""
    must_train(backend)
    said = []
    for kind in trained_heads(backend):
        losses = train(with_settings(backend, job(kind)), example_batch(kind), kind, 40)
        assert losses[-1] < 0.5 * losses[0], f"{kind}: loss {losses[0]:.3f} -> {losses[-1]:.3f}"
        said.append(f"{kind} {losses[0]:.2f} -> {losses[-1]:.2f}")
    return ", ".join(said)


def check_clipping(backend: Backend) -> str:
    """Clipping scales all gradients to the global norm asked for, and `grad_norm` is the norm before it."""
    must_train(backend)
    batch = example_batch("classification")
    norms = {}
    for limit in (0.0, 0.01):
        spec = OptimizerSpec(clip_norm=limit)
        engine = with_settings(backend, dataclasses.replace(job("classification"), optimizer=spec))
        counts = label_counts("classification", [batch])
        said = float(engine.train_step(Update(1, (batch,), counts), RATE)["grad_norm"])
        squares = sum(float(np.square(m.astype(np.float64)).sum()) for m in first_moments(engine).values())
        norms[limit] = (said, float(np.sqrt(squares)) / (1 - spec.beta1))
    assert abs(norms[0.0][0] / norms[0.0][1] - 1) < 1e-4, f"grad_norm {norms[0.0][0]} is not {norms[0.0][1]}"
    assert abs(norms[0.01][1] / 0.01 - 1) < 1e-3, f"clipped to 0.01, the norm is {norms[0.01][1]}"
    assert abs(norms[0.01][0] / norms[0.0][0] - 1) < 1e-5, "grad_norm changes with clipping"
    _clips_after_accumulation(backend, spec)
    return f"norm {norms[0.0][0]:.4f} before clipping, 0.01 after, over all micro-batches together"


def _clips_after_accumulation(backend: Backend, spec: OptimizerSpec) -> None:
    """One norm over the whole update: clipping each micro-batch, or a sum under way, would turn the gradient."""
    batch = example_batch("classification")
    found = []
    for splits in (1, 4):
        engine = with_settings(backend, dataclasses.replace(job("classification"), optimizer=spec))
        train(engine, batch, "classification", 1, splits=splits)
        found.append(first_moments(engine))
    largest = max(float(np.abs(array).max()) for array in found[0].values())
    assert gap(*found) < 1e-2 * largest, "clipped gradients of 1 x 12 and 4 x 3 sequences differ: is each one clipped?"


def check_dropout(backend: Backend) -> str:
    """Dropout follows from seed and update alone: the same twice, different for another seed and another update."""
    must_train(backend)
    batch = example_batch("classification")

    def losses(seed: int, first: int = 1) -> list[float]:
        engine = with_settings(backend, dataclasses.replace(job("classification", dropout=True), seed=seed))
        return train(engine, batch, "classification", 3, first=first)

    once = losses(3)
    assert once == losses(3), "the same seed gives other losses"
    assert once[0] != losses(4)[0], "another seed gives the same loss: dropout is off or not seeded"
    assert once[0] != losses(3, first=2)[0], "another update gives the same dropout"
    off = train(with_settings(backend, job("classification")), batch, "classification", 1)
    assert once[0] != off[0], "dropout changes nothing"
    return "same seed same losses; other seeds and updates differ"


def check_resume(backend: Backend) -> str:
    """Three updates, a checkpoint taken over by a fresh engine, three more: bit for bit those of six in a row."""
    must_train(backend, numbers=False)
    batch = example_batch("classification")
    straight, before, after = (with_settings(backend, job("classification", dropout=True)) for _ in range(3))
    train(straight, batch, "classification", 6)
    train(before, batch, "classification", 3)
    after.load_state_dict({name: np.array(array) for name, array in before.state_dict().items()})
    train(after, batch, "classification", 3, first=4)
    difference = gap(straight.state_dict(), after.state_dict())
    if backend.capabilities.bitwise_resume:
        assert difference == 0.0, f"the resumed state differs by {difference:.2e}"
    assert difference <= 1e-5, f"the resumed state differs by {difference:.2e}"
    return f"largest difference {difference:.1e}"
