"""The losses by a teacher's states in the torch engine: gradients by differences, groups, NVIDIA's own formulas."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed")
from torch.nn import functional  # noqa: E402

from bertkit.conformance.distillation import PARTS, SPEC, TERMS, WIDTH, check_teacher_states, states_job  # noqa: E402
from bertkit.conformance.fixtures import example_batch, train, with_settings  # noqa: E402
from bertkit.engine.interface import StatesLoss, StateTerm  # noqa: E402
from bertkit.engine.teacher_losses import state_sums  # noqa: E402
from bertkit.model.parameters import unread_names  # noqa: E402
from bertkit_cpu import CpuBackend  # noqa: E402
from bertkit_torch import imitation  # noqa: E402

LENGTHS = [9, 7, 4, 1]
OWN = 64  # width of the student's states


def case(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray, dict[str, np.ndarray]]:
    """(a batch with the teacher's states, the student's, the projection)"""
    rng = np.random.default_rng(seed)
    tokens = sum(LENGTHS)
    batch = {
        "cu_seqlens": np.concatenate([[0], np.cumsum(LENGTHS)]),
        "teacher_states": rng.standard_normal((tokens, 3 * WIDTH)),
    }
    projection = {"weight": rng.standard_normal((WIDTH, OWN)) / 8, "bias": rng.standard_normal(WIDTH)}
    return batch, rng.standard_normal((tokens, len(PARTS) * OWN)), projection


def torch_loss(states: Any, batch: dict[str, np.ndarray], spec: StatesLoss, projection: Any = ()) -> Any:
    first = torch.from_numpy(batch["cu_seqlens"][:-1].copy())
    where = imitation.Stretches(first, torch.tensor(LENGTHS), imitation.groups(LENGTHS))
    counts = {"tokens": sum(LENGTHS), "pairs": sum(n * n for n in LENGTHS)}
    teacher = torch.from_numpy(batch["teacher_states"])
    return imitation.states_loss(spec, states, teacher, where, counts, OWN, projection)


@pytest.mark.parametrize("term", TERMS, ids=lambda term: f"{term.form}-{term.heads}")
def test_a_gradient_is_the_slope_of_the_formula(term: StateTerm) -> None:
    """Of the states and of the projection, along random directions, by central differences in float64."""
    batch, states, projection = case()
    spec = StatesLoss((term,), WIDTH)
    names = {f"distillation.projection.{name}": value for name, value in projection.items()}

    def formula(moved: np.ndarray, other: dict[str, np.ndarray]) -> float:
        return state_sums(spec, moved, OWN, batch, other).loss(spec)

    given_states = torch.tensor(states, dtype=torch.float32, requires_grad=True)
    given_projection = tuple(torch.tensor(p, dtype=torch.float32, requires_grad=True) for p in projection.values())
    loss = torch_loss(given_states, batch, spec, given_projection)
    assert float(loss.detach()) == pytest.approx(formula(states, names), abs=1e-5)
    (3 * loss).backward()  # what is upstream, as a loss scale, multiplies it
    rng, step = np.random.default_rng(1), 1e-4
    for _ in range(5):
        way = rng.standard_normal(states.shape)
        slope = (formula(states + step * way, names) - formula(states - step * way, names)) / (2 * step)
        assert 3 * slope == pytest.approx(float((given_states.grad.double() * torch.from_numpy(way)).sum()), abs=2e-5)
    if term.form in ("mse", "cosine"):
        for (name, values), tensor in zip(names.items(), given_projection, strict=True):
            way = rng.standard_normal(values.shape)
            both = [formula(states, {**names, name: values + sign * step * way}) for sign in (1, -1)]
            found = float((tensor.grad.double() * torch.from_numpy(way)).sum())
            assert 3 * (both[0] - both[1]) / (2 * step) == pytest.approx(found, abs=2e-5)


@given(st.lists(st.integers(1, 600), min_size=1, max_size=60).map(lambda found: sorted(found, reverse=True)))
def test_every_sequence_is_in_one_group(lengths: list[int]) -> None:
    found = imitation.groups(lengths)
    assert [n for group in found for n in range(group.first, group.end)] == list(range(len(lengths)))
    for group in found:
        own = lengths[group.first : group.end]
        assert group.longest == max(own)
        padded = len(own) * group.longest**2
        assert padded <= max(imitation.MOST_PAIRS, group.longest**2)
        few = padded <= imitation.FEW_PAIRS or len(own) == 1
        assert few or padded <= imitation.MOST_PADDED * sum(n * n for n in own)


def test_groups_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, states, projection = case()
    given_projection = tuple(torch.tensor(p, dtype=torch.float32) for p in projection.values())
    found = []
    for most in (1 << 17, 100):
        monkeypatch.setattr(imitation, "MOST_PAIRS", most)
        monkeypatch.setattr(imitation, "FEW_PAIRS", most)
        moved = torch.tensor(states, dtype=torch.float32, requires_grad=True)
        loss = torch_loss(moved, batch, SPEC, given_projection)
        loss.backward()
        found.append((float(loss.detach()), moved.grad))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_nvidias_formulas_where_both_agree() -> None:
    """Sequences of one length: sums over all pairs by B, A and S, as in its `distillation/`."""
    rng = np.random.default_rng(3)
    count, length, heads = 3, 6, 4
    ours, theirs = (torch.tensor(rng.standard_normal((count, length, 4 * OWN)), dtype=torch.float64) for _ in "ab")

    def scores(states: Any, one: int, other: int) -> Any:
        cut = (states[..., n * OWN : (n + 1) * OWN].unflatten(-1, (heads, -1)).transpose(1, 2) for n in (one, other))
        query, key = cut
        return query @ key.transpose(2, 3) / math.sqrt(OWN / heads)

    def kl(one: int, other: int) -> Any:
        student, teacher = (scores(states, one, other).log_softmax(-1) for states in (ours, theirs))
        summed = functional.kl_div(student, teacher, reduction="sum", log_target=True)
        return summed / count / (heads * length)

    wanted = (
        kl(0, 1)
        + kl(2, 2)
        + (1 - functional.cosine_similarity(ours[..., 3 * OWN :], theirs[..., 3 * OWN :], -1)).mean()
    )
    terms = (
        StateTerm("attention_kl", (0, 1), (0, 1), heads=heads),
        StateTerm("relations", (2,), (2,), heads=heads),
        StateTerm("cosine", (3,), (3,)),
    )
    lengths = [length] * count
    where = imitation.Stretches(torch.arange(count) * length, torch.tensor(lengths), imitation.groups(lengths))
    counts = {"tokens": count * length, "pairs": count * length**2}
    flat = (states.float().flatten(0, 1) for states in (ours, theirs))
    found = imitation.states_loss(StatesLoss(terms, OWN), *flat, where, counts, OWN)
    assert float(found) == pytest.approx(float(wanted), abs=1e-5)


def test_what_no_state_depends_on_is_left_as_it_was() -> None:
    """Weight decay would change it, were it not frozen."""
    wanted = states_job()
    head = dataclasses.replace(wanted.head, states=(("query", 2), ("key", 2), ("hidden", 1)), outputs=3 * 64)
    terms = (StateTerm("attention_kl", (0, 1), (0, 1), heads=4), StateTerm("cosine", (2,), (2,)))
    unread = unread_names(wanted.model, head)
    loss = dataclasses.replace(wanted.loss, states=StatesLoss(terms, WIDTH))
    engine = with_settings(CpuBackend(), dataclasses.replace(wanted, head=head, loss=loss, frozen=unread))
    before = engine.weights()
    batch = dict(example_batch("encoder"))
    batch["teacher_states"] = np.ones((len(batch["input_ids"]), 3 * WIDTH), np.float16)
    train(engine, batch, "encoder", 2)
    changed = {name for name, array in engine.weights().items() if not np.array_equal(array, before[name])}
    assert changed == set(before) - set(unread)


def test_the_check_finds_a_mean_that_counts_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    cut = imitation._cut

    def padded(where: Any) -> Any:
        return ((places, torch.ones_like(real), counted) for places, real, counted in cut(where))

    monkeypatch.setattr(imitation, "_cut", padded)
    with pytest.raises(AssertionError, match="losses differ from the formulas"):
        check_teacher_states(CpuBackend())
