"""The checks themselves: a fault planted in a backend is found by the check that is meant for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from bertkit.conformance import CHECKS, run_check, run_checks
from bertkit.conformance.progress import plan
from bertkit.distributed.world import World
from bertkit.engine.interface import Batch, Engine, Job, Scalars, Update
from bertkit_cpu import CpuBackend
from planted import clip_each_micro_batch

Fault = Callable[[Any], None]


class Faulty(CpuBackend):
    """The CPU backend with something wrong in each engine that it makes."""

    def __init__(self, spoil: Fault) -> None:
        self.spoil = spoil

    def engine(self, job: Job, world: World) -> Engine:
        engine = super().engine(job, world)
        self.spoil(engine)
        return engine


def ignore_the_layout(engine: Any) -> None:
    """Attention sees padding and neighbours: every mask is dropped."""
    import dataclasses

    from bertkit_torch.attention import InGroups

    see = engine.passes.see

    def unmasked(attention: Any) -> Any:
        rows = tuple(dataclasses.replace(row, bias=None) for row in attention.heads.rows)
        return InGroups(dataclasses.replace(attention.heads, rows=rows))

    def seen(*given: Any) -> Any:
        found = see(*given)
        return dataclasses.replace(found, attention=unmasked(found.attention), last=unmasked(found.last))

    engine.passes.see = seen


def learn_the_word_beside(engine: Any) -> None:
    """A teacher's logits of masked words are one place off."""
    step = engine.train_step

    def off(batch: Batch) -> Batch:
        return {**batch, "teacher_masked_logits": np.roll(batch["teacher_masked_logits"], 1, 0)}

    engine.train_step = lambda update, rate: step(
        Update(update.step, tuple(map(off, update.micro_batches)), update.label_counts), rate
    )


def normalise_by_micro_batch(engine: Any) -> None:
    """The mean over each micro-batch, summed, as seen where accumulation does not divide."""
    step = engine.train_step

    def train_step(update: Update, rate: float) -> Scalars:
        smaller = {name: count // len(update.micro_batches) for name, count in update.label_counts.items()}
        return step(Update(update.step, update.micro_batches, smaller), rate)  # type: ignore[no-any-return]

    engine.train_step = train_step


def clip_nothing(engine: Any) -> None:
    import torch

    engine.device.clip = lambda gradients, most: torch.nn.utils.clip_grad_norm_(gradients.parameters, float("inf"))


def decay_everything(engine: Any) -> None:
    engine.optimizer.alike = {(0.5, factor): names for (_, factor), names in engine.optimizer.alike.items()}


def forget_the_moments(engine: Any) -> None:
    load = engine.load_state_dict

    def load_state_dict(arrays: Mapping[str, np.ndarray]) -> None:
        load({n: np.zeros_like(a) if n.startswith("adam.second") else a for n, a in arrays.items()})

    engine.load_state_dict = load_state_dict


def same_dropout_each_update(engine: Any) -> None:
    step = engine.train_step
    engine.train_step = lambda update, rate: step(Update(1, update.micro_batches, update.label_counts), rate)


def stop_learning(engine: Any) -> None:
    step = engine.train_step
    engine.train_step = lambda update, rate: step(update, 0.0)


def count_the_empty(engine: Any) -> None:
    """A micro-batch without sequences still moves the weights."""
    step = engine.train_step

    def train_step(update: Update, rate: float) -> Scalars:
        full: tuple[Batch, ...] = tuple(b for b in update.micro_batches if len(b["cu_seqlens"]) > 1)
        extra = rate if len(full) == len(update.micro_batches) else 2 * rate
        return step(Update(update.step, full, update.label_counts), extra)  # type: ignore[no-any-return]

    engine.train_step = train_step


def round_the_logits(engine: Any) -> None:
    predict = engine.predict
    engine.predict = lambda batch: {
        n: np.round(a, 1) + (engine.job.precision == "bf16") for n, a in predict(batch).items()
    }


PLANTED: Mapping[str, tuple[Fault, str]] = {
    "no mask": (ignore_the_layout, "layouts"),
    "normalised by micro-batch": (normalise_by_micro_batch, "split"),
    "no clipping": (clip_nothing, "clipping"),
    "clipping before accumulation": (clip_each_micro_batch, "clipping"),
    "decay on biases": (decay_everything, "optimizer"),
    "moments lost on resume": (forget_the_moments, "resume"),
    "the same dropout each update": (same_dropout_each_update, "dropout"),
    "learning rate ignored": (stop_learning, "learns"),
    "empty micro-batch counts": (count_the_empty, "empty_micro_batch"),
    "a teacher's words are one off": (learn_the_word_beside, "teacher_words"),
    "bf16 is off by one": (round_the_logits, "precisions"),
}


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found(fault: str) -> None:
    spoil, check = PLANTED[fault]
    if check == "precisions" and "bf16" not in CpuBackend().probe().precisions:
        pytest.skip("this CPU has no native bf16")
    with pytest.raises(AssertionError):
        CHECKS[check](Faulty(spoil))


def test_a_check_that_breaks_down_is_a_failure_and_the_rest_still_runs() -> None:
    def spoil(engine: Any) -> None:
        raise OSError("the device is gone")

    results = list(run_checks(Faulty(spoil)))
    assert [result.name for result in results] == list(CHECKS)
    assert {result.outcome for result in results if result.name not in ("card", "loss_scaling")} == {"failed"}
    assert "the device is gone" in results[1].detail


def test_progress_is_told_within_a_check_and_an_end_is_an_end() -> None:
    told: list[int] = []
    done = run_check(CpuBackend(), "clipping", told.append)
    assert (done.outcome, told) == ("passed", [1, 2, 3, 4])
    cut = run_check(CpuBackend(), "clipping", told.append, until=0.0)
    assert cut.outcome == "failed"
    assert cut.detail == "not finished in the time announced; give more with --limit"


def test_what_is_announced_follows_from_a_trial_and_a_broken_backend_is_left_to_the_checks() -> None:
    few = plan(CpuBackend(), ("resume", "card"))
    assert (few.engines, few.expected, few.limit) == ({"resume": 3, "card": 0}, None, 600.0)
    assert str(few) == "2 checks; all end within 10 min (--limit)"
    every = plan(CpuBackend(), tuple(CHECKS), limit=90.0)
    assert every.expected is not None
    assert 1 < every.expected < 3600
    assert str(every).startswith(f"{len(CHECKS)} checks, about ")
    assert str(every).endswith("all end within 90 s (--limit)")

    def spoil(engine: Any) -> None:
        raise OSError("the device is gone")

    assert plan(Faulty(spoil), tuple(CHECKS)).expected is None
