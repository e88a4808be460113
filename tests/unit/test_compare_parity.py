"""Parity of loss curves: what is planted is found at its update, and rounding is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.comparison.entries import entry
from bertkit.comparison.parity import SEEN, TOLERANCES, Parity, follow, hold, lines
from bertkit.errors import UserError
from bertkit.files.disk import to_json
from bertkit.records.files import Record, sealed
from made_records import record

LOSSES = [float(value) for value in np.linspace(0.7, 0.2, 60)]
PRECISIONS = st.sampled_from(sorted(TOLERANCES))


def curve(losses: Sequence[float | None]) -> dict[int, float | None]:
    return dict(enumerate(losses, 1))


def held(first: dict[str, Any], second: dict[str, Any], steps: int | None = None) -> Parity:
    one, two = (entry(Record(sealed(made), Path(name, "record.json"))) for name, made in (("a", first), ("b", second)))
    return hold(one, two, steps)


@given(st.lists(st.floats(0, 20), min_size=1, max_size=50), PRECISIONS)
def test_a_curve_is_at_parity_with_itself(losses: list[float], precision: str) -> None:
    verdict = follow(curve(losses), curve(losses), [precision, precision])
    assert verdict.holds
    assert verdict.parting is None
    assert verdict.seen is None


@given(st.integers(1, 60), PRECISIONS, st.floats(1.01, 1e3))
def test_a_difference_is_found_at_its_update(step: int, precision: str, times: float) -> None:
    allowed = TOLERANCES[precision].allowed(step, LOSSES[step - 1])
    for sign in (1, -1):
        planted = [*LOSSES]
        planted[step - 1] += sign * times * allowed
        planted[step:] = [loss + 1 for loss in LOSSES[step:]]
        verdict = follow(curve(LOSSES), curve(planted), [precision, precision])
        larger = allowed if sign < 0 else TOLERANCES[precision].allowed(step, planted[step - 1])
        if times * allowed > larger:
            assert verdict.parting is not None
            assert verdict.parting.step == step
            assert verdict.parting.apart == pytest.approx(times * allowed, rel=1e-6)
            assert not verdict.holds


@given(st.lists(st.floats(-0.99, 0.99), min_size=60, max_size=60), PRECISIONS)
def test_what_is_allowed_is_no_failure(shares: list[float], precision: str) -> None:
    tolerance = TOLERANCES[precision]
    off = [
        loss + share * tolerance.allowed(step, loss)
        for step, (loss, share) in enumerate(zip(LOSSES, shares, strict=True), 1)
    ]
    assert follow(curve(LOSSES), curve(off), [precision, precision]).holds


def test_tolerances_grow_and_the_coarser_precision_counts() -> None:
    for rule in TOLERANCES.values():
        assert rule.allowed(100, 1.0) > rule.allowed(1, 1.0) > rule.floor > 0
        assert rule.reason
    assert follow(curve(LOSSES), curve(LOSSES), ["fp32", "bf16"]).precision == "bf16"
    assert follow(curve(LOSSES), curve(LOSSES), ["bf16", "fp32"]).precision == "bf16"


def test_a_loss_that_is_not_finite_parts_unless_both_are() -> None:
    broken = [*LOSSES[:9], None, *LOSSES[10:]]
    found = follow(curve(LOSSES), curve(broken), ["fp32", "fp32"])
    assert found.parting is not None
    assert found.parting.step == 10
    assert follow(curve(broken), curve(broken), ["fp32", "fp32"]).holds
    report = held(record(losses=LOSSES), record(losses=broken))
    assert "B not finite" in "\n".join(lines(report))
    json.loads(to_json(report.to_mapping()))


def test_another_number_of_updates_fails_and_says_so() -> None:
    found = held(record(losses=LOSSES), record(losses=LOSSES[:40]))
    assert not found.verdict.holds
    assert found.verdict.parting is None
    assert "A has 60 updates, B has 40" in "\n".join(lines(found))
    assert held(record(losses=LOSSES), record(losses=LOSSES[:40]), steps=40).verdict.holds


def test_the_first_trace_of_a_difference_is_told_before_it_counts() -> None:
    off = [loss * (1 + 2.5e-6) if step >= 3 else loss for step, loss in enumerate(LOSSES, 1)]
    off[6:] = [loss * 1.01 for loss in LOSSES[6:]]
    found = held(record(losses=LOSSES), record(losses=off))
    assert found.verdict.seen is not None
    assert (found.verdict.seen.step, found.verdict.seen.relative > SEEN) == (3, True)
    assert found.verdict.parting is not None
    assert found.verdict.parting.step == 7
    text = "\n".join(lines(found))
    assert "parity fails at update 7" in text
    assert "first differ beyond their last digits at update 3" in text
    assert "amplifies" not in text


def test_rounding_that_grows_late_is_called_that() -> None:
    off = [loss + max(0.0, 2.0 ** (step - 60) * 1e-2) for step, loss in enumerate(LOSSES, 1)]
    text = "\n".join(lines(held(record(losses=LOSSES), record(losses=off))))
    assert "amplifies" in text
    assert "--steps 4" in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 2}, "the seeds differ: 1 and 2"),
        ({"facts": {"hidden_dropout": 0.2}}, "dropout of the dense layers: 0.1 (A); 0.2 (B)"),
        ({"facts": {"clip_order": "before accumulation"}}, "clip order"),
        ({"precision": {"name": "bf16"}}, "precision: fp32 (A); bf16 (B)"),
        ({"backend": {"name": "another"}}, "dropout draws its masks by backend, layout and rank"),
        ({"devices": 2}, "dropout draws its masks by backend, layout and rank"),
    ],
)
def test_what_may_be_the_cause_is_named(change: dict[str, Any], words: str) -> None:
    found = held(record(losses=LOSSES), record(losses=[loss * 1.1 for loss in LOSSES], **change))
    assert any(words in reason for reason in found.reasons), found.reasons
    assert not found.verdict.holds


def test_without_dropout_another_backend_is_no_reason() -> None:
    none = {"hidden_dropout": 0.0, "attention_dropout": 0.0}
    found = held(record(losses=LOSSES, facts=none), record(losses=LOSSES, facts=none, backend={"name": "another"}))
    assert found.reasons == []
    assert found.verdict.holds


def test_what_cannot_be_followed_is_an_error() -> None:
    with pytest.raises(UserError, match="b: has no losses"):
        held(record(losses=LOSSES), record(losses=[]))
    with pytest.raises(UserError, match="no tolerance for precision int8"):
        held(record(losses=LOSSES), record(losses=LOSSES, precision={"name": "int8"}))
