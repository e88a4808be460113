"""`bertkit.schedule`: values known by hand, and Hugging Face's formulas."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.schedule import schedule

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


def mlperf(update: int, peak: float, warmup: int, steps: int, power: float, end: float, start: int) -> float:
    """`LinearWarmupPolyDecayScheduler` of MLPerf Training's BERT; `start` is its `start_warmup_step`, at most 0."""
    offset = int(start == 0)
    if update - offset - start < warmup:
        return peak * (update - offset - start) / (warmup + 1e-6)
    return (peak - end) * float((1 - min((update - offset) / steps, 1)) ** power) + end


def nvidia(update: int, peak: float, warmup: float, steps: int, power: float) -> float:
    """`PolyWarmUpScheduler` of NVIDIA's DeepLearningExamples; `warmup` is a share."""
    progress = update / steps
    return peak * progress / warmup if progress < warmup else peak * float((1.0 - progress) ** power)


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


def test_a_start_shortens_the_warmup() -> None:
    rate = schedule("linear", peak=8.0, warmup=4, steps=10, start=2)
    assert [rate(step) for step in range(1, 11)] == [4, 6, 8, 7, 6, 5, 4, 3, 2, 1]
    assert schedule("linear", 8.0, warmup=4, steps=8, start=9)(1) == 8.0  # all of it is done
    assert [schedule("constant", 8.0, 4, 8, start=2)(step) for step in (1, 2, 3, 8)] == [4.0, 6.0, 8.0, 8.0]


def test_a_fall_from_the_start_jumps_after_the_warmup() -> None:
    rate = schedule("polynomial", peak=8.0, warmup=2, steps=8, decay="from_start")
    assert [rate(step) for step in range(1, 10)] == [0, 4, 6, 5, 4, 3, 2, 1, 0]


@quick
@given(plans, st.integers(-9, 0), st.floats(0.25, 3.0), st.floats(0.0, 1e-6))
def test_from_the_start_it_is_mlperfs(plan: tuple[int, int], start: int, power: float, end: float) -> None:
    """Its negative start warm-up step s is a start of 1 - s: with one, its update n has the value at n."""
    steps, warmup = plan
    ahead = 1 - start if start else 0
    rate = schedule("polynomial", 1e-3, warmup, steps, power, end, ahead, "from_start")
    wanted = [mlperf(update, 1e-3, warmup, steps, power, end, start) for update in range(1, steps + 1)]
    assert [rate(update) for update in range(1, steps + 1)] == pytest.approx(wanted, rel=2e-6, abs=1e-15)


def test_with_a_start_of_one_it_is_nvidias() -> None:
    """Phase 1 of its BERT: 7,038 updates, 2,000 of warm-up, power 0.5; the jump is from 6e-3 to 5.08e-3."""
    rate = schedule("polynomial", 6e-3, 2000, 7038, 0.5, start=1, decay="from_start")
    wanted = [nvidia(update, 6e-3, 2000 / 7038, 7038, 0.5) for update in range(1, 7039)]
    assert [rate(update) for update in range(1, 7039)] == pytest.approx(wanted, rel=1e-9, abs=1e-12)
    assert rate(2000) == pytest.approx(5.076e-3, abs=1e-6)


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
