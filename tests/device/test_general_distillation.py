"""Distillation on pre-training data with the CPU's engine: what the teacher gives, what is learned, what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.console import Display
from bertkit.distributed.world import World
from bertkit.engine.interface import NO_LABEL
from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, write_arrays
from bertkit.recipes.recipe import Value
from bertkit.recipes.resolve import resolve
from bertkit.training.general_distillation import GeneralDistillation, general_distillation
from bertkit.training.pretraining import pretraining
from bertkit.training.run import Run
from bertkit.training.stages import Course, make_stages
from bertkit.training.teacher import teacher_target
from pretraining_runs import SMALL, dotted, run, write_phases

CPU: dict[str, Value] = {
    "backend": "cpu", "device.threads": 1, "optimizer.learning_rate": 1e-3, "model.hidden_dropout": 0.0,
    "model.attention_dropout": 0.0, "log.every": 10,
}  # fmt: skip
WORDS: dict[str, Value] = {"distill.soft": 5.0, "distill.hard": 2.0, "distill.cosine": 1.0}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and `teacher`, a small model with all of pre-training's head."""
    folder = write_phases(tmp_path_factory.mktemp("general"))
    run(folder, folder / "teacher", **CPU, train__steps=4)
    return folder


def settings(data: Path, **more: Value) -> dict[str, Value]:
    teacher = str(data / "teacher")
    return SMALL | CPU | {"data.dir": str(data), "distill.teacher": teacher, "model.name": teacher} | dotted(more)


def course(data: Path, **more: Value) -> GeneralDistillation:
    recipe = resolve(settings(data, **more), env={}).recipe
    display = Display(quiet=True)
    return general_distillation(pretraining(recipe, World(), display, False), recipe, display, dry_run=False)


def fitted(data: Path, output: Path, resume: bool = False, **more: Value) -> Run:
    return run(data, output, resume, **settings(data, **more))


def test_states_of_two_phases(data: Path, tmp_path: Path) -> None:
    """The teacher is asked once for each sequence and epoch; what stands above the states stays as it was."""
    phases: dict[str, Value] = {"train.phases": "1,2", "train.steps": 8, "phase2.steps": 4, "model.layers": "1"}
    done = fitted(data, tmp_path / "small", distill__learn="tinybert", **phases)
    assert list(done.metrics) == ["state_loss"]
    assert done.losses[-1] < done.losses[0]
    facts = done.added["distillation"]
    assert facts["teacher_forward_passes"] == 110 + 59, "an epoch of either phase; one of 60 is held out"
    assert facts["layers"] == {"teacher": 2, "student": 1}
    teacher, student = (read_arrays(f / "model.safetensors")[0] for f in (data / "teacher", tmp_path / "small"))
    for name in ("cls.predictions.bias", "bert.pooler.dense.weight"):
        assert np.array_equal(student[name], teacher[name])
    first = "bert.encoder.layer.0.attention.self.query.weight"
    assert not np.array_equal(student[first], teacher["bert.encoder.layer.1.attention.self.query.weight"])


def test_a_teacher_says_of_itself_that_it_is_like_itself(data: Path) -> None:
    objective = course(data, **WORDS)
    engine = objective.setup.target.backend.engine(objective.setup.job, World())
    try:
        objective.begin(engine, objective.recipe, Display(quiet=True))
        (update,) = objective.updates(1, 1)
        metrics, _ = objective.score(engine, Display(quiet=True), 0)
        (batch,) = update.micro_batches
        loss = float(engine.train_step(update, 0.0)["loss"])
    finally:
        objective.close()
        engine.close()
    assert (metrics["agreement"], metrics["teacher_kl"]) == (1.0, pytest.approx(0, abs=1e-6))
    assert "nsp_accuracy" not in metrics
    assert (batch["labels"] == NO_LABEL).all()
    logits, labels = batch["teacher_masked_logits"].astype(np.float64), batch["masked_labels"]
    by_labels = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels])
    assert loss == pytest.approx(2 * by_labels, abs=1e-5), "its words and states are its own, so labels alone are left"
    assert update.label_counts["tokens"] == len(batch["input_ids"]) == len(batch["teacher_states"])


def test_masked_words_and_states_are_learned_into_another_width(data: Path, tmp_path: Path) -> None:
    narrow: dict[str, Value] = {"model.name": "mini", "model.vocab": str(data / "teacher")}
    done = fitted(data, tmp_path / "small", train__steps=6, **narrow, **WORDS)
    assert done.losses[-1] < done.losses[0]
    assert {"mlm_accuracy", "agreement", "teacher_kl"} <= set(done.metrics)
    assert "projected to 128" in str(done.record and done.record["fairness"]["loss_scale"])
    arrays = read_arrays(tmp_path / "small" / "model.safetensors")[0]
    assert not [name for name in arrays if "projection" in name]
    # what next sentences alone depend on starts anew, and is not trained
    assert not arrays["cls.seq_relationship.bias"].any()
    again = fitted(data, tmp_path / "again", train__steps=6, train__micro_batch_size=4, **narrow, **WORDS)
    assert again.losses == pytest.approx(done.losses, abs=1e-5)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"distill.learn": "tinybert", "model.name": "mini"}, "4 heads and the teacher 2"),
        ({"distill.learn": "relations", "evaluation.target_mlm_accuracy": 0.5}, "of masked words"),
        ({"model.name": "mini"}, "has another vocabulary"),
        ({"data.dir": "elsewhere"}, "elsewhere"),
    ],
)
def test_what_cannot_be_is_refused(data: Path, tmp_path: Path, more: dict[str, Any], cause: str) -> None:
    if "vocabulary" in cause:
        pieces = (data / "vocab.txt").read_text().splitlines()
        (tmp_path / "vocab.txt").write_text("\n".join([*pieces, "otherwise"]) + "\n")
        more = more | {"model.vocab": str(tmp_path / "vocab.txt")}
    with pytest.raises(UserError, match=cause):
        course(data, **more)


@pytest.mark.parametrize(
    ("more", "cause"),
    [
        ({"distill.transfer": "more.txt"}, "transfer is for a task's rows"),
        ({"distill.cache_gb": 1.0}, "cache_gb is for a task's rows"),
        ({"distill.teacher": "", "distill.cosine": 1.0}, "no teacher is named"),
    ],
)
def test_settings_without_effect_are_refused(data: Path, tmp_path: Path, more: dict[str, Any], cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        fitted(data, tmp_path / "small", **more)


def test_a_teacher_without_a_head_for_masked_words(data: Path, tmp_path: Path) -> None:
    headless = tmp_path / "headless"
    headless.mkdir()
    for name in ("config.json", "vocab.txt"):
        (headless / name).write_bytes((data / "teacher" / name).read_bytes())
    arrays, metadata = read_arrays(data / "teacher" / "model.safetensors")
    kept = {name: array for name, array in arrays.items() if name.startswith("bert.")}
    write_arrays(headless / "model.safetensors", kept, metadata)
    with pytest.raises(UserError, match=r"no trained head for masked words: it lacks cls\.predictions"):
        course(data, distill__teacher=str(headless))
    assert course(data, distill__teacher=str(headless), distill__learn="relations").learned.loss


def test_stages_of_pretraining_data(data: Path) -> None:
    given: dict[str, Value] = {"task": "pretrain", "data.dir": str(data), "output": "small"}
    (only,) = make_stages(Course(str(data / "teacher"), layers="1"), given)
    assert only.learn == only.resolved.recipe.distill.learn == "relations"
    of_task = make_stages(Course(str(data / "teacher"), layers="1"), given | {"task": "sst2"})
    assert [stage.learn for stage in of_task] == ["relations", "logits"]
    both = make_stages(Course(str(data / "teacher"), layers="1", stages=("tinybert", "logits")), given)
    assert [stage.learn for stage in both] == ["tinybert", "logits"]
    assert dataclasses.asdict(both[0].resolved.recipe.data)["dir"] == str(data)


def test_a_backend_that_gives_no_states_is_no_place_for_their_teacher(data: Path) -> None:
    recipe = resolve(settings(data, distill__teacher_backend="jax"), env={}).recipe
    own = course(data, distill__learn="relations").teacher
    with pytest.raises(UserError, match="backend jax does not give a teacher's states"):
        teacher_target(recipe, own.head, own.target, dry_run=True)
