"""What is planned for the batches of a run: near what occurs, phase by phase, and never less than can occur."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.features import Features
from bertkit.data.lengths import lengths
from bertkit.data.sampler import Sampler, by_length, deal
from bertkit.engine.interface import BatchLimits, DrawnBatch
from bertkit.engine.layouts import pack
from bertkit.engine.static_shapes import Shapes, shapes
from bertkit.engine.steps import best_steps, even_steps
from bertkit.training.batch_limits import DRAWS, of_answers, of_training
from bertkit.training.pretraining import Pretraining
from pretraining_files import PIECES, Known, write_parquet, write_vocabulary
from pretraining_runs import course

WITHIN = 1.1  # times what the batches hold
COUNT = 8  # sizes, as device.shapes has it


def features_of(found: np.ndarray, each: int = 1) -> Features:
    nothing = np.zeros(int(found.sum()), np.int32)
    return Features(nothing, nothing, np.concatenate([[0], np.cumsum(found)]), {}, each=each)


# ---- steps ----


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(0, 20), st.integers(1, 5), st.sampled_from([1, 8])
)
def test_no_other_steps_leave_less_room_over(needed: list[int], more: int, count: int, grain: int) -> None:
    """Against every choice of as many steps."""
    most = max(needed) + more
    last = -(-most // grain) * grain
    amounts = sorted({-(-amount // grain) * grain for amount in needed} | {last})

    def room(steps: tuple[int, ...]) -> int:
        return sum(min(step for step in steps if step >= amount) for amount in needed)

    found = tuple(best_steps(np.array(needed), most, count, grain))
    assert found[-1] == last
    assert len(found) <= count
    every = [(*some, last) for size in range(count) for some in combinations(amounts[:-1], size)]
    least = min(map(room, every))
    assert room(found) == least
    assert len(found) == min(len(steps) for steps in every if room(steps) == least)


def test_many_amounts_are_planned_by_their_quantiles() -> None:
    needed = np.arange(1, 5001)
    steps = best_steps(needed, 5000, 10, 1)
    assert steps[-1] == 5000
    assert np.allclose(steps, even_steps(5000, 10, 1), atol=40)


# ---- sizes for what is drawn ----


@st.composite
def kinds(draw: st.DrawFn) -> tuple[BatchLimits, list[DrawnBatch], bool, int]:
    """Limits with drawn batches, and other batches within them."""
    sequences, longest = draw(st.integers(1, 30)), draw(st.integers(1, 60))
    share = draw(st.floats(0.0, 0.3))
    each = st.lists(st.integers(1, longest), min_size=1, max_size=sequences)
    made = [
        DrawnBatch(np.array(found), int(share * sum(found))) for found in draw(st.lists(each, min_size=1, max_size=12))
    ]
    masked = max(int(share * sequences * longest), *(batch.masked for batch in made))
    known = draw(st.integers(1, len(made)))
    limits = BatchLimits(sequences, longest, masked, drawn=tuple(made[:known]))
    return limits, made, draw(st.booleans()), draw(st.integers(1, 9))


@settings(deadline=None)
@given(st.lists(kinds(), min_size=1, max_size=3))
def test_every_batch_of_every_kind_has_a_size_and_none_is_larger_than_can_occur(
    cases: list[tuple[BatchLimits, list[DrawnBatch], bool, int]],
) -> None:
    flat, count = cases[0][2:]
    plan = shapes([limits for limits, *_ in cases], count, flat)
    assert len(plan) <= count * len(cases)
    for limits, batches, *_ in cases:
        whole = np.full(limits.sequences, limits.longest)
        for batch in (*batches, DrawnBatch(whole, limits.masked)):
            sizes = plan.fit(batch.lengths, batch.masked)
            assert sizes is not None
            assert sizes.sequences >= len(batch.lengths)
            needed = int(batch.lengths.sum()) if flat else len(pack(batch.lengths, sizes.width)) * sizes.width
            assert sizes.slots >= needed
            assert sizes.masked >= batch.masked
    for sizes in plan:
        possible = [
            limits.sequences * (limits.longest + 7 if not flat else limits.longest) + 127 * flat for limits, *_ in cases
        ]
        assert sizes.slots <= max(possible)
        assert sizes.masked <= max(limits.masked for limits, *_ in cases)


def measured(plan: Shapes, batches: list[DrawnBatch]) -> tuple[float, float]:
    """(slots over tokens, masked rows over masked words)."""
    slots = tokens = rows = words = 0
    for batch in batches:
        sizes = plan.fit(batch.lengths, batch.masked)
        assert sizes is not None
        slots, tokens = slots + sizes.slots, tokens + int(batch.lengths.sum())
        rows, words = rows + sizes.masked, words + batch.masked
    return slots / tokens, rows / max(1, words)


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(48, 512), min_size=1, max_size=40), st.integers(32, 64), st.integers(2, 76), st.integers(0, 99)
)
def test_slots_and_masked_rows_are_near_those_of_batches_to_come(
    known: list[int], batch: int, most: int, seed: int
) -> None:
    """Whatever the lengths are: measured on another epoch than the plan was made by."""
    stream = np.random.default_rng(seed)
    found = stream.choice(known, 2_000)
    masked = np.clip(np.rint(0.15 * found).astype(int), 1, most)
    data, sampler = features_of(found), Sampler(len(found), batch, seed)
    plan = shapes([of_training(data, sampler, 1, 0, masked)], COUNT, flat=True)
    later = range(5 * sampler.steps_per_epoch + 1, 8 * sampler.steps_per_epoch)  # whole batches
    batches = [sampler.batch(step) for step in later if step % sampler.steps_per_epoch]
    slots, rows = measured(plan, [DrawnBatch(found[some], int(masked[some].sum())) for some in batches])
    tokens = np.mean([found[some].sum() for some in batches])
    assert slots <= WITHIN + 128 / tokens  # the grain of slots
    assert rows <= WITHIN + 8 / np.mean([masked[some].sum() for some in batches])  # that of masked rows


@pytest.mark.parametrize(
    ("name", "batch", "before"), [("mrpc", 32, 0.83), ("squad384", 48, 0.89), ("wiki512", 56, 0.90)]
)
def test_real_lengths_fill_more_than_evenly_spaced_sizes_did(name: str, batch: int, before: float) -> None:
    found = lengths(name, 4_000, 1)
    sampler = Sampler(len(found), batch, 3)
    plan = shapes([of_training(features_of(found), sampler, 1, 0)], COUNT, flat=True)
    batches = [DrawnBatch(found[sampler.batch(step)]) for step in range(300, 500)]
    even = shapes([BatchLimits(batch, int(found.max()))], COUNT, flat=True)
    assert 1 / measured(even, batches)[0] == pytest.approx(before, abs=0.03)
    assert 1 / measured(plan, batches)[0] > 0.955


# ---- what is drawn ----


@given(st.integers(1, 300), st.integers(1, 40), st.integers(0, 12), st.integers(1, 4), st.integers(1, 3))
@settings(deadline=None, max_examples=50)
def test_drawn_batches_are_such_as_training_makes(examples: int, share: int, micro: int, ranks: int, each: int) -> None:
    found = np.random.default_rng(examples).integers(3, 60, examples * each)
    data, sampler = features_of(found, each), Sampler(examples, share * ranks, 5)
    limits = of_training(data, sampler, ranks, micro)
    at_once = -(-share // (-(-share // micro) if micro else 1))
    assert limits.sequences == at_once * each
    assert limits.longest == found.max()
    assert 0 < len(limits.drawn) <= DRAWS
    most = np.sort(data.sizes)[-at_once:].sum()
    assert limits.most_tokens == most
    assert all(len(batch.lengths) <= limits.sequences and batch.lengths.sum() <= most for batch in limits.drawn)
    hands = deal(data.sizes[sampler.batch(1)], ranks, -(-share // at_once))[0]
    first = next(some for some in hands if len(some))
    own = found.reshape(examples, each)[sampler.batch(1)[first]].reshape(-1)
    assert any(np.array_equal(batch.lengths, own) for batch in limits.drawn) or len(limits.drawn) == DRAWS


def test_the_last_batch_of_an_epoch_is_among_them() -> None:
    found = np.full(100_007, 32)
    limits = of_training(features_of(found), Sampler(len(found), 100, 1), 1, 0)
    assert min(len(batch.lengths) for batch in limits.drawn) == 7


def test_answers_are_drawn_by_length() -> None:
    found = np.arange(3, 103)
    limits = of_answers(features_of(found), 8)
    wanted = [found[some].tolist() for some in by_length(found, 8)]
    assert [batch.lengths.tolist() for batch in limits.drawn] == wanted
    assert limits.most_tokens == sum(range(95, 103))


def test_nothing_to_answer_has_a_size_still() -> None:
    assert len(shapes([of_answers(features_of(np.empty(0, np.int64)), 8)], 4)) >= 1


# ---- two phases ----


def sequences_of(found: np.ndarray, seed: int) -> list[Known]:
    stream = np.random.default_rng(seed)
    ids = [tuple(map(int, stream.integers(5, len(PIECES), length - 3))) for length in found]
    return [Known(some[: len(some) // 2], some[len(some) // 2 :], bool(n % 2), ()) for n, some in enumerate(ids)]


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory: pytest.TempPathFactory) -> Pretraining:
    """448 x 128, then 56 x 512 of the published lengths; masked anew in each epoch."""
    folder = tmp_path_factory.mktemp("phases")
    write_vocabulary(folder)
    for name, found in (("phase1", np.full(1_000, 128)), ("phase2", lengths("wiki512", 600, 1))):
        (folder / name).mkdir()
        write_parquet(folder / name / "part.0.parquet", sequences_of(found, len(found)), static=False)
    return course(
        folder, train__phases="1,2", data__seq_length=128, phase2__seq_length=512, train__batch_size=448,
        phase2__batch_size=56, data__most_masked=20, phase2__most_masked=76, train__steps=4, phase2__steps=20,
        evaluation__batch_size=64,
    )  # fmt: skip


@pytest.mark.parametrize("flat", [True, False])
def test_each_phase_is_planned_by_its_own_batches(two_phases: Pretraining, flat: bool) -> None:
    """By the maxima of all phases together it was 229,376 slots in the warm-up, 34,048 masked rows, and for a batch of
    the second phase 28,672 slots."""
    limits = two_phases.setup.job.limits
    assert limits is not None
    plan = shapes(limits.training, COUNT, flat)
    assert max(sizes.slots for sizes in plan) == 448 * 128
    assert max(sizes.masked for sizes in plan) <= 448 * 20
    for phase in two_phases.phases:
        made = [update.micro_batches[0] for update in two_phases.updates(phase.before + 1, phase.end)]
        batches = [
            DrawnBatch(np.diff(batch["cu_seqlens"]), len(batch["masked_positions"]))
            for batch in made
            if len(batch["cu_seqlens"]) - 1 == phase.update_settings.at_once  # an epoch's last is smaller
        ]
        slots, masked = measured(plan, batches)
        assert slots <= WITHIN, phase.number
        assert masked <= WITHIN, phase.number


def test_scores_of_each_phase_have_sizes_of_their_own(two_phases: Pretraining) -> None:
    limits = two_phases.setup.job.limits
    assert limits is not None
    plan = shapes(limits.answers, COUNT, flat=True)
    for phase in two_phases.phases:
        found = list(phase.scored_on.batches(64, 0, 1))
        assert all(plan.fit(np.diff(b["cu_seqlens"]), len(b["masked_positions"])) is not None for b in found)
