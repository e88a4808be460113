"""`bertkit distill -t pretrain` as a user has it: stages on shards, kills at any time, several processes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from command import record, run, settings, start_ranks
from conftest import assert_one_line_error
from killed import killed, same_run
from pretraining_runs import write_phases

SHARDS = ("-t", "pretrain", "-s", "32", "-d", "fp32", "--backend", "cpu")
MORE = settings(
    train__steps=8, checkpoint__every=3, evaluation__every=4, log__every=1, device__threads=1,
    model__hidden_dropout=0.0, model__attention_dropout=0.0,
)  # fmt: skip
WORDS = ("--hard", "2", *settings(distill__soft=5, distill__cosine=1))
DISTILL = ("distill", "teacher", "--layers", "1", *SHARDS, *MORE, *WORDS, "--stages", "relations,logits")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`, `teacher`, and `small`, distilled from one of its two layers."""
    folder = tmp_path_factory.mktemp("general")
    (folder / "data").mkdir()
    write_phases(folder / "data")
    for words in (
        ("train", "-m", "tiny", *SHARDS, *MORE, "-b", "16", "--data-dir", "data", "--lr", "1e-3", "-o", "teacher"),
        (*DISTILL, "-b", "16", "--data-dir", "data", "-o", "small"),
    ):
        began = time.monotonic()
        done = run(folder, *words)
        assert done.returncode == 0, done.stderr
        (folder / "took").write_text(str(time.monotonic() - began))
        (folder / "told.txt").write_text(done.stderr)
    return folder


def place(taught: Path, tmp_path: Path) -> Path:
    for name in ("data", "teacher"):
        (tmp_path / name).symlink_to(taught / name)
    return tmp_path


@pytest.mark.slow
def test_two_stages_on_shards(taught: Path) -> None:
    told = (taught / "told.txt").read_text()
    assert "stage 1 of 2: relations" in told
    assert "result on the evaluation set: mlm_accuracy" in told
    assert "next: bertkit train -m small" in told
    facts = record(taught / "small")["callbacks"]["distillation"]
    assert facts["teacher_forward_passes"] == 110, "of an epoch"
    assert facts["teacher_metrics"].keys() == {"mlm_accuracy"}


@pytest.mark.slow
def test_kills_at_random_moments_change_nothing(taught: Path, tmp_path: Path) -> None:
    """Of the second stage; `tests/killed.py` does it to each, more often."""
    words = (*DISTILL, "-b", "16", "--data-dir", "data")
    assert killed(
        place(taught, tmp_path), words, "small", taught / "small", float((taught / "took").read_text()), kills=2
    )
    same_run(tmp_path / "small-relations", taught / "small-relations")


@pytest.mark.slow
def test_two_ranks_learn_what_one_does(taught: Path, tmp_path: Path) -> None:
    folder = place(taught, tmp_path)
    for done in start_ranks(folder, 2, [*DISTILL, "--data-dir", "data", "-b", "8", "-o", "small"]):
        assert done.returncode == 0, done.stderr
    for stage in ("small-relations", "small"):
        one, two = (record(place / stage) for place in (taught, folder))
        assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
        assert two["metrics"] == pytest.approx(one["metrics"], abs=1e-4)
        facts = [each["callbacks"]["distillation"]["teacher_forward_passes"] for each in (one, two)]
        assert facts[0] == facts[1]


def test_a_published_teacher_that_is_not_here(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    vocab = settings(model__vocab=write_phases(tmp_path / "data") / "vocab.txt")
    done = run(
        tmp_path, "distill", "mini", "-m", "tiny", *SHARDS, *vocab, "--data-dir", "data", "--offline", "-o", "small"
    )
    assert_one_line_error(done, "the model bert-mini-uncased is not here")
