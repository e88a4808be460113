"""SQuAD as a user runs it: train, evaluate, predict, ask, and every way in which its files can be wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bertkit.data.tasks.squad.reader import ReferenceAnswer
from command import record, run, settings, start_ranks
from conftest import Run, assert_one_line_error, command_env
from squad_files import reviews, to_squad, write_squad

Done = subprocess.CompletedProcess[str]
TINY = ("--backend", "cpu", "-m", "tiny", "-s", "24", "-d", "fp32")
LONG = "the film was so so so good . " * 9 + "the plot is bold ."


@pytest.fixture(scope="module")
def vocab(sample_dir: Path) -> Path:
    return sample_dir / "sample" / "vocab.txt"


def train(folder: Path, data: Path, vocab: Path, task: str = "squad", *more: str) -> Done:
    learning = settings(
        model__start="random", model__vocab=vocab, data__doc_stride=8, data__eval_rows=60, model__hidden_dropout=0.0
    )
    common = ("-b", "8", "-e", "6", "--lr", "5e-4", *learning, *more)
    return run(folder, "train", *TINY, "-t", task, "--data-dir", data, "-o", "run", *common)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for version in ("v1.1", "v2.0"):
        for split, count in (("train", 180), ("dev", 60)):
            second = version == "v2.0"
            write_squad(folder / "squad" / f"{split}-{version}.json", reviews(count, second), second)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path, vocab: Path) -> Path:
    folder = tmp_path_factory.mktemp("squad")
    done = train(folder, data, vocab)
    assert done.returncode == 0, done.stderr
    assert "360 training examples" in done.stderr
    return folder / "run"


def test_a_run_learns_and_leaves_its_answers(trained: Path) -> None:
    made = record(trained)
    assert made["metrics"]["exact_match"] > 90, made[
        "metrics"
    ]  # the words behind "is" and "was": 50 without reading the question
    assert made["metrics"]["f1"] >= made["metrics"]["exact_match"]
    assert made["config"]["data.query_length"] == 64
    assert made["config_sources"]["train.epochs"] == "option"
    assert made["config_sources"]["schedule.warmup"] == "recipe squad, as squad has it"
    assert made["data"]["train"]["sequences"] >= made["data"]["train"]["examples"] == 360
    said = json.loads((trained / "predictions" / "predictions-dev.json").read_text())
    assert len(said) == 60
    assert (trained / "predictions" / "nbest_predictions-dev.json").exists()


@pytest.mark.slow
def test_evaluate_and_predict_and_score_agree(trained: Path, data: Path, tmp_path: Path) -> None:
    dev = data / "squad" / "dev-v1.1.json"
    found = run(tmp_path, "evaluate", trained, "--data-dir", data, "--json")
    assert found.returncode == 0, found.stderr
    whole = json.loads(found.stdout)
    assert whole["examples"] == 120  # eval_rows is the training run's
    done = run(tmp_path, "predict", trained, "--file", dev, "-o", "out", "--json")
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(done.stdout)
    assert entry["metrics"] == whole["metrics"]
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"predictions.json", "nbest_predictions.json"}
    scored = run(tmp_path, "score", "out/predictions.json", "-t", "squad", "--file", dev, "--json")
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["metrics"] == whole["metrics"]


@pytest.mark.slow
def test_two_processes_answer_each_question_once(trained: Path, data: Path, tmp_path: Path) -> None:
    dev = data / "squad" / "dev-v1.1.json"
    arguments = ["predict", str(trained), "--file", str(dev), "-q", "-b", "16"]
    alone = run(tmp_path, *arguments, "-o", "alone")
    assert alone.returncode == 0, alone.stderr
    ranks = start_ranks(tmp_path, 2, [*arguments, "-o", "ranks"])
    assert [done.returncode for done in ranks] == [0, 0], ranks[0].stderr + ranks[1].stderr
    one, two = (json.loads((tmp_path / name / "predictions.json").read_text()) for name in ("alone", "ranks"))
    assert one == two
    assert len(one) == 120


@pytest.mark.slow
def test_v2_writes_null_odds_and_scores_them(tmp_path: Path, data: Path, vocab: Path) -> None:
    done = train(tmp_path, data, vocab, "squad2", *settings(train__steps=20))
    assert done.returncode == 0, done.stderr
    wanted = {"exact", "f1", "HasAns_f1", "NoAns_f1", "best_f1", "best_f1_thresh"}
    assert wanted <= set(record(tmp_path / "run")["metrics"])
    odds = json.loads((tmp_path / "run" / "predictions" / "null_odds-dev.json").read_text())
    assert len(odds) == 60


@pytest.mark.slow
def test_the_features_of_a_second_run_come_from_the_cache(tmp_path: Path, data: Path, vocab: Path) -> None:
    one = train(tmp_path, data, vocab, "squad", "--dry-run")
    assert one.returncode == 0, one.stderr
    kept = sorted((tmp_path / "cache" / "bertkit" / "features").glob("squad-train-*"))
    assert len(kept) == 1
    before = kept[0].stat().st_mtime_ns
    assert train(tmp_path, data, vocab, "squad", "--dry-run").returncode == 0
    assert kept[0].stat().st_mtime_ns == before
    assert train(tmp_path, data, vocab, "squad", "--dry-run", *settings(data__doc_stride=9)).returncode == 0
    assert len(list((tmp_path / "cache" / "bertkit" / "features").glob("squad-train-*"))) == 2


# bertkit ask


def test_a_long_context_is_read_in_windows(trained: Path, tmp_path: Path) -> None:
    done = run(tmp_path, "ask", trained, "--question", "the plot is ?", "--context", LONG, "-n", "20", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert all(LONG[one["start"] : one["end"]] == one["text"] for one in found["n_best"])
    assert any(one["start"] > 250 for one in found["n_best"])  # the last window has been read too
    assert sum(one["probability"] for one in found["n_best"]) == pytest.approx(1, abs=1e-6)


def test_questions_are_read_line_by_line(trained: Path, tmp_path: Path) -> None:
    first, second = "the plot is good and the cast was flat .", "the pace is rich ."
    lines = f"{first}\nthe plot is ?\nthe cast was ?\n\n{second}\nthe pace is ?\n"
    done = subprocess.run(
        [*run_command(), "ask", str(trained), "--json"],
        input=lines, cwd=tmp_path, env=command_env(tmp_path), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["question"] for one in found] == ["the plot is ?", "the cast was ?", "the pace is ?"]


def run_command() -> list[str]:
    return [sys.executable, "-m", "bertkit"]


# What is wrong is said in one line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--question", " ", "--context", "a"], ["the question is empty"]),
        (["--question", "a", "--context", " "], ["the context is empty"]),
        (["--question", "a"], ["a question needs a context"]),
        (["--question", "a", "--context", "b", "--context-file", "c"], ["--context-file are both given"]),
        (["--question", "a", "--context-file", "none.txt"], ["none.txt: cannot be read"]),
        (["--question", "the plot is good ?", "--context", "b", "-s", "7"], ["leaves no room", "-s"]),
    ],
)
def test_ask_refuses(trained: Path, bertkit: Run, arguments: list[str], words: list[str]) -> None:
    assert_one_line_error(bertkit("ask", trained, *arguments), *words)


@pytest.mark.slow
def test_a_model_of_another_task_is_not_asked(bertkit: Run, sample_dir: Path) -> None:
    made = bertkit(
        *("train", "--recipe", "demo", "--backend", "cpu", "--data-dir", sample_dir, "-o", "run"),
        *settings(train__steps=1, data__train_rows=32, data__eval_rows=8),
    )
    assert made.returncode == 0, made.stderr
    done = bertkit("ask", "run", "--question", "a", "--context", "b")
    assert_one_line_error(done, "was trained on sample, which does not answer questions")


@pytest.mark.slow
def test_faults_of_a_training_file(tmp_path: Path, data: Path, vocab: Path) -> None:
    path = tmp_path / "own.json"
    text = (data / "squad" / "train-v1.1.json").read_text()
    own = settings(data__train_file=path)

    def fault(*words: str, more: tuple[str, ...] = ()) -> None:
        done = train(tmp_path, data, vocab, "squad", *own, *more)
        assert_one_line_error(done, *words)
        assert not (tmp_path / "run").exists()

    fault("own.json is missing")
    path.write_text(text[:1000])
    fault("own.json:1:")
    path.write_text(text)
    fault("leaves no room for its paragraph in 6", "raise -s", more=("-s", "6"))

    held = reviews(20)
    wrong = replace(held[0].questions[0], answers=(ReferenceAnswer("good", 1),))
    held[0] = replace(held[0], questions=(wrong, held[0].questions[1]))
    path.write_text(json.dumps(to_squad(held)))
    fault("question 0-0: the answer 'good' does not stand at character 1", more=("--strict",))
    done = train(tmp_path, data, vocab, "squad", *own, *settings(train__steps=1))
    assert done.returncode == 0, done.stderr
    assert "1 questions are skipped in training" in done.stderr
    faults = record(tmp_path / "run")["data"]["train"]["faults"]
    assert len(faults) == 1
