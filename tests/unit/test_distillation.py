"""Learning from a teacher, without a framework: what is learned, what is kept of it, how stages follow one another."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.console import Display
from bertkit.data.features import Features, joined
from bertkit.distributed.world import World
from bertkit.engine.interface import NO_LABEL
from bertkit.errors import UserError
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig
from bertkit.model.parameters import shapes, unread_names
from bertkit.recipes.sections import DistillSection
from bertkit.training import teacher as module
from bertkit.training.distillation import compared, confidence
from bertkit.training.stages import Course, make_stages
from bertkit.training.teacher import ask_states, check_room, keep_logits, kept_logits, states_bytes
from bertkit.training.teacher_terms import learned_states
from bertkit.training.transfer import unlabelled

SMALL = ModelConfig(8, 2, 2, 16, vocab_size=50, max_position_embeddings=32)
BASE, LARGE = ARCHITECTURES["base"], ARCHITECTURES["large"]
STUDENT = ARCHITECTURES["4l-312d"]
HEAD = Head("encoder", 3 * 8, states=(("query", 2), ("key", 2), ("value", 2)))


def section(**values: Any) -> DistillSection:
    return DistillSection(**values)


def features(lengths: list[int], labels: Mapping[str, np.ndarray] | None = None) -> Features:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    ids = np.arange(starts[-1], dtype=np.int32) % 50
    return Features(ids, np.zeros_like(ids), starts, labels or {})


# ---- what is learned ----


def test_relations_need_no_equal_heads_or_sizes() -> None:
    found = learned_states(section(learn="relations"), STUDENT, BASE)
    assert found.student.states == (("query", 4), ("key", 4), ("value", 4))
    assert found.teacher.states == (("query", 12), ("key", 12), ("value", 12))
    assert [term.heads for term in found.loss.terms] == [24] * 3  # the most that divides 312 and 768
    assert (found.student.projection, found.loss.width) == (0, 768)
    assert learned_states(section(learn="relations"), BASE, BASE).loss.terms[0].heads == 48
    assert learned_states(section(learn="relations"), BASE, LARGE).teacher.states[0] == ("query", 21)
    assert learned_states(section(learn="relations", teacher_layer=24), BASE, LARGE).teacher.states[0] == ("query", 24)


def test_tinyberts_layers_are_spread_evenly() -> None:
    found = learned_states(section(learn="tinybert"), STUDENT, BASE)
    assert [layer for part, layer in found.teacher.states if part == "hidden"] == [0, 3, 6, 9, 12]
    assert [layer for part, layer in found.student.states if part == "hidden"] == [0, 1, 2, 3, 4]
    assert [term.form for term in found.loss.terms] == ["mse", *["attention_mse", "mse"] * 4]
    assert found.student.projection == 768  # one, of all hidden states
    for term in found.loss.terms:  # each compares what it says
        parts = {found.student.states[n][0] for n in term.student}
        assert parts == ({"hidden"} if term.form == "mse" else {"query", "key"})
        assert [found.student.states[n][0] for n in term.student] == [found.teacher.states[n][0] for n in term.teacher]


def test_the_last_layers_losses() -> None:
    found = learned_states(section(learn="last_layer"), STUDENT, BASE)
    assert {layer for _, layer in found.student.states} == {4}
    assert [term.form for term in found.loss.terms] == ["attention_kl", "relations", "cosine"]
    assert [term.heads for term in found.loss.terms] == [12, 12, 1]


@pytest.mark.parametrize(
    ("said", "student", "cause"),
    [
        ({"learn": "tinybert"}, LARGE, "16 heads and the teacher 12"),
        ({"learn": "relations", "teacher_layer": 13}, STUDENT, "the teacher has 12 layers"),
        ({"learn": "relations", "relation_heads": 48}, STUDENT, "48 does not divide both hidden sizes, 312 and 768"),
    ],
)
def test_what_does_not_fit_is_refused(said: dict[str, Any], student: ModelConfig, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        learned_states(section(**said), student, BASE)


def test_what_states_do_not_depend_on_is_known() -> None:
    every = set(shapes(SMALL, HEAD))
    unread = set(unread_names(SMALL, HEAD))
    top = "bert.encoder.layer.1."
    assert unread == {name for name in every if name.startswith(top) and ".self." not in name}
    keys = dataclasses.replace(HEAD, states=(("key", 1),))
    read = every - set(unread_names(SMALL, keys))
    assert {name for name in read if "layer" in name} == {
        f"bert.encoder.layer.0.attention.self.key.{kind}" for kind in ("weight", "bias")
    }
    context = dataclasses.replace(HEAD, states=(("context", 2),))
    assert set(unread_names(SMALL, context)) == unread
    assert not unread_names(SMALL, dataclasses.replace(HEAD, states=(("hidden", 2),)))


# ---- rows without labels ----


def test_rows_without_labels_follow_the_labelled() -> None:
    train = features([3, 2], {"labels": np.array([1, 0])})
    more = unlabelled(features([4]), train)
    found = joined([train, more])
    assert found.labels["labels"].tolist() == [1, 0, NO_LABEL]
    assert found.cu_seqlens.tolist() == [0, 3, 5, 9]
    batch = found.batch(np.array([2, 0]))
    assert batch["input_ids"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    real = unlabelled(features([4]), features([3], {"labels": np.ones((1, 2), np.float32)}))
    assert real.labels["labels"].tolist() == [[0, 0]]


def test_what_a_teacher_gave_changes_no_digest() -> None:
    plain = features([3, 2], {"labels": np.array([1, 0])})
    taught = dataclasses.replace(plain, labels={**plain.labels, "teacher_logits": np.ones((2, 2), np.float32)})
    assert taught.digest() == plain.digest()
    assert taught.batch(np.array([1]))["teacher_logits"].shape == (1, 2)


# ---- what is kept ----


def test_logits_are_kept_under_their_key(tmp_path: Path) -> None:
    arrays = {"logits": np.arange(6, dtype=np.float32).reshape(3, 2)}
    keep_logits(tmp_path, "a", arrays)
    found = kept_logits(tmp_path, "a")
    assert found is not None
    assert np.array_equal(found["logits"], arrays["logits"])
    assert kept_logits(tmp_path, "b") is None
    (tmp_path / "teacher-b.safetensors").write_bytes((tmp_path / "teacher-a.safetensors").read_bytes())
    assert kept_logits(tmp_path, "b") is None, "of another key, renamed"
    (tmp_path / "teacher-a.safetensors").write_bytes(b"short")
    assert kept_logits(tmp_path, "a") is None
    assert kept_logits(None, "a") is None


class Counting:
    """Gives each token's id in every column."""

    def __init__(self) -> None:
        self.asked = 0

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.asked += len(batch["cu_seqlens"]) - 1
        return {"hidden": np.repeat(batch["input_ids"][:, None], HEAD.outputs, 1).astype(np.float32)}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows


def asked_for(engine: Counting, folder: Path, key: str = "k") -> Any:
    return ask_states(engine, key, HEAD, features([5, 2, 7, 3]), folder, 2, World(), Display(quiet=True))


def test_states_are_computed_once(tmp_path: Path) -> None:
    engine = Counting()
    found = asked_for(engine, tmp_path)
    assert (engine.asked, found.computed) == (4, 4)
    assert np.array_equal(found.arrays["teacher_states"][:, 0], features([5, 2, 7, 3]).input_ids)
    again = asked_for(engine, tmp_path)
    assert (engine.asked, again.computed) == (4, 0)
    assert np.array_equal(again.arrays["teacher_states"], found.arrays["teacher_states"])
    asked_for(engine, tmp_path, "another")
    assert engine.asked == 8
    assert not list(tmp_path.glob(".*"))


def test_states_that_are_damaged_or_half_written_are_computed_anew(tmp_path: Path) -> None:
    engine = Counting()
    asked_for(engine, tmp_path)
    path = tmp_path / "teacher-k.npy"
    path.write_bytes(path.read_bytes()[:-9])
    asked_for(engine, tmp_path)
    assert engine.asked == 8

    class Dies(Counting):
        def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            if self.asked:
                raise KeyboardInterrupt
            return super().predict(batch)

    path.unlink()
    with pytest.raises(KeyboardInterrupt):
        asked_for(Dies(), tmp_path)
    assert not path.exists(), "a part of the states is not taken for all"
    (left,) = tmp_path.glob(".*")  # this process lives, so it may still be at work on it
    left.unlink()
    assert asked_for(engine, tmp_path).computed == 4


def test_a_full_disk_is_one_line_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.np.lib.format, "write_array_header_1_0", full)
    engine = Counting()
    with pytest.raises(UserError, match="no room for the teacher's states"):
        asked_for(engine, tmp_path)
    assert engine.asked == 0
    assert not list(tmp_path.iterdir())


def test_states_have_a_budget(tmp_path: Path) -> None:
    some = features([5, 2])
    assert states_bytes(HEAD, some) == 7 * 24 * 2
    assert check_room(tmp_path, HEAD, some, 1.0) == tmp_path
    with pytest.raises(UserError, match=r"over distill\.cache_gb = 1e-09"):
        check_room(tmp_path, HEAD, some, 1e-9)
    with pytest.raises(UserError, match=r"data\.cache is off"):
        check_room(None, HEAD, some, 1.0)


# ---- both side by side ----


@given(st.integers(0, 2**32 - 1))
def test_a_model_agrees_with_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((4, 3)).astype(np.float32)
    found = compared(Head("classification", 3), {"logits": logits}, {"logits": logits}, features([2, 3, 1, 2]))
    assert found == {"agreement": 1.0, "teacher_kl": pytest.approx(0, abs=1e-12)}
    spans = {name: rng.standard_normal(8).astype(np.float32) for name in ("start_logits", "end_logits")}
    assert compared(Head("span", 2), spans, spans, features([2, 3, 3]))["agreement"] == 1.0


def test_how_far_apart_two_are() -> None:
    ours, theirs = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32), np.array([[0.0, 2.0], [0.0, 1.0]], np.float32)
    found = compared(Head("classification", 2), {"logits": ours}, {"logits": theirs}, features([2, 3]))
    assert found["agreement"] == 0.5
    p = np.exp([0, 2]) / np.exp([0, 2]).sum()
    assert found["teacher_kl"] == pytest.approx((p * np.log(p / p[::-1])).sum() / 2, abs=1e-6)
    signs = compared(Head("multilabel", 2), {"logits": ours - 0.5}, {"logits": theirs - 0.5}, features([2, 3]))
    assert signs["agreement"] == 0.5
    assert compared(Head("regression", 2), {"logits": ours}, {"logits": theirs}, features([2, 3])) == {
        "teacher_mse": 2.0
    }


# ---- stages ----


def test_each_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    output = str(tmp_path / "small")
    course = Course("runs/sst2", layers="3", state_epochs=2, state_rate=2e-4)
    made = make_stages(course, {"task": "sst2", "output": output, "train.epochs": 4.0})
    first, last = (stage.resolved.recipe for stage in made)
    assert (first.model.name, first.model.layers, first.distill.learn) == ("runs/sst2", "3", "relations")
    assert (first.train.epochs, first.optimizer.learning_rate, first.output) == (2, 2e-4, f"{output}-relations")
    assert (last.model.name, last.model.layers, last.distill.learn) == (f"{output}-relations", "", "logits")
    assert (last.train.epochs, last.optimizer.learning_rate, last.output) == (4, 5e-5, output)
    assert {one.distill.teacher for one in (first, last)} == {"runs/sst2"}


def test_a_size_has_the_teachers_word_pieces() -> None:
    made = make_stages(Course("runs/sst2", stages=("logits",)), {"task": "sst2", "model.name": "4l-312d"})
    assert [stage.resolved.recipe.model.vocab for stage in made] == ["runs/sst2"]


@pytest.mark.parametrize(
    ("course", "model", "cause"),
    [
        (Course("t"), None, "no student is named"),
        (Course("t", layers="3"), "tiny", "a model or from the teacher's layers"),
        (Course("t", layers="3", stages=("logits", "relations")), None, "logits last"),
        (Course("t", layers="3", stages=("relations", "relations")), None, "each once"),
        (Course("t", layers="3", stages=("hidden",)), None, "no stage 'hidden'"),
    ],
)
def test_stages_that_cannot_be(course: Course, model: str | None, cause: str) -> None:
    with pytest.raises(UserError, match=cause):
        make_stages(course, {"task": "sst2", "model.name": model})


def test_confidence_is_the_mean_probability_of_the_likeliest_class() -> None:
    logits = np.log(np.array([[0.9, 0.1], [0.3, 0.7]], np.float32)) + np.float32(90)
    assert confidence(Head("classification", 2), {"logits": logits}) == pytest.approx(0.8)
    assert confidence(Head("regression", 1), {"logits": logits[:, :1]}) is None
