"""`bertkit.training.schedule`: values known by hand, and Hugging Face's formulas."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.training.schedule import schedule

quick = settings(deadline=None, max_examples=100)
plans = st.tuples(st.integers(1, 500), st.floats(0.0, 1.0)).map(lambda plan: (plan[0], int(plan[0] * plan[1])))


def hugging_face_linear(done: int, peak: float, warmup: int, steps: int) -> float:
    """`get_linear_schedule_with_warmup` of transformers, with `done` updates behind it."""
    if done < warmup:
        return peak * (done / max(1, warmup))
    return peak * max(0.0, (steps - done) / max(1, steps - warmup))


def hugging_face_polynomial(done: int, peak: float, warmup: int, steps: int, power: float, end: float) -> float:
    """`get_polynomial_decay_schedule_with_warmup` of transformers."""
    if done < warmup:
        return peak * (done / max(1, warmup))
    if done > steps:
        return end
    remaining = 1 - (done - warmup) / (steps - warmup)
    return (peak - end) * float(remaining**power) + end


def test_linear_by_hand() -> None:
    rate = schedule("linear", peak=8.0, warmup=4, steps=12)
    wanted = [0, 2, 4, 6, 8, 7, 6, 5, 4, 3, 2, 1]
    assert [rate(step) for step in range(1, 13)] == pytest.approx(wanted, abs=0)


def test_linear_has_power_one_whatever_is_asked() -> None:
    assert schedule("linear", 8.0, 0, 4, power=0.5)(3) == 4.0


def test_linear_goes_down_to_its_end_rate() -> None:
    rate = schedule("linear", peak=5.0, warmup=0, steps=4, end=1.0)
    assert [rate(step) for step in range(1, 7)] == [5.0, 4.0, 3.0, 2.0, 1.0, 1.0]  # and stays there past the plan


def test_polynomial_by_hand() -> None:
    rate = schedule("polynomial", peak=1.0, warmup=2, steps=18, power=0.5)
    assert [rate(step) for step in (1, 2, 3)] == [0.0, 0.5, 1.0]
    assert rate(3 + 7) == 0.75  # 9/16 are left
    assert rate(3 + 12) == 0.5  # 1/4 is left
    assert rate(18) == 0.25  # 1/16 is left at the last update


def test_polynomial_with_an_end_rate() -> None:
    rate = schedule("polynomial", peak=5.0, warmup=0, steps=4, power=2.0, end=1.0)
    assert [rate(step) for step in (1, 3, 5)] == [5.0, 2.0, 1.0]


def test_constant_stays_at_its_peak() -> None:
    rate = schedule("constant", peak=3.0, warmup=3, steps=10, power=4.0, end=1.0)
    assert [rate(step) for step in (1, 2, 3, 4, 7, 10, 11)] == [0.0, 1.0, 2.0, 3.0, 3.0, 3.0, 3.0]


@pytest.mark.parametrize("name", ["linear", "polynomial", "constant"])
def test_without_warmup_the_first_update_has_the_peak(name: str) -> None:
    rate = schedule(name, peak=2e-5, warmup=0, steps=7)  # type: ignore[arg-type]
    assert rate(1) == 2e-5
    assert schedule(name, peak=2e-5, warmup=0, steps=1)(1) == 2e-5  # type: ignore[arg-type]


@quick
@given(plans, st.floats(1e-6, 1.0))
def test_linear_is_hugging_faces(plan: tuple[int, int], peak: float) -> None:
    steps, warmup = plan
    rate = schedule("linear", peak, warmup, steps)
    wanted = [hugging_face_linear(done, peak, warmup, steps) for done in range(steps)]
    assert [rate(step) for step in range(1, steps + 1)] == pytest.approx(wanted, rel=1e-9)


@quick
@given(plans, st.floats(1e-6, 1.0), st.floats(0.25, 3.0), st.floats(0.0, 1e-6))
def test_polynomial_is_hugging_faces(plan: tuple[int, int], peak: float, power: float, end: float) -> None:
    steps, warmup = plan
    rate = schedule("polynomial", peak, warmup, steps, power, end)
    wanted = [hugging_face_polynomial(done, peak, warmup, steps, power, end) for done in range(steps)]
    assert [rate(step) for step in range(1, steps + 1)] == pytest.approx(wanted, rel=1e-9)


@quick
@given(plans, st.sampled_from(["linear", "polynomial", "constant"]))
def test_the_last_update_still_learns(plan: tuple[int, int], name: str) -> None:
    steps, warmup = plan
    rate = schedule(name, 1e-4, warmup, steps, power=0.5)  # type: ignore[arg-type]
    if steps > 1 or warmup == 0:  # a single update that is all warm-up has Hugging Face's rate of 0
        assert 0 < rate(steps) <= 1e-4
    rates = [rate(step) for step in range(1, steps + 1)]
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)


def poly_warm_up(n: int, peak: float, warmup: float, steps: int, degree: float) -> float:
    """NVIDIA's PolyWarmUpScheduler at its n-th update."""
    progress = n / steps
    return peak * progress / warmup if progress < warmup else peak * (1.0 - progress) ** degree


@pytest.mark.parametrize(("warmup", "steps"), [(0.2843, 7038), (0.128, 1563), (0.25, 80)])
def test_decay_from_the_start_is_nvidias(warmup: float, steps: int) -> None:
    # ours warms up in whole updates, theirs in a share
    rate = schedule("polynomial", 6e-3, round(warmup * steps), steps, 0.5, decay_from="start", start=1)
    for n in range(1, steps + 1):
        if abs(n - warmup * steps) > 1:
            assert rate(n) == pytest.approx(poly_warm_up(n, 6e-3, warmup, steps, 0.5), rel=1e-3), n
    assert rate(1) > 0
    assert rate(steps) == 0.0
    last, first = rate(round(warmup * steps) - 1), rate(round(warmup * steps) + 1)
    assert first < last  # their jump


def mlperf(n: int, peak: float, start: int, warmup: int, steps: int) -> float:
    """LinearWarmupPolyDecayScheduler of MLPerf's BERT, degree 1."""
    offset = int(start == 0)
    warm = n - offset - start
    return peak * warm / (warmup + 1e-6) if warm < warmup else peak * (1.0 - min(1.0, (n - offset) / steps))


@pytest.mark.parametrize(("start", "warmup"), [(0, 0), (0, 5), (-25, 100)])
def test_a_warm_up_that_begins_before_the_run_is_mlperfs(start: int, warmup: int) -> None:
    ours = schedule(
        "polynomial", 1.5e-3, warmup, 200, 1.0, decay_from="start", start=int(start != 0), warmup_start=start
    )
    for n in range(1, 201):
        assert ours(n) == pytest.approx(mlperf(n, 1.5e-3, start, warmup, 200), rel=1e-6, abs=1e-12), n


def test_a_warm_up_that_begins_later_has_no_rate_below_zero() -> None:
    rate = schedule("linear", 1.0, 4, 20, warmup_start=3)
    assert [rate(step) for step in range(1, 9)] == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0]
