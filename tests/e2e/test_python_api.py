"""The trainer from Python, as docs/python.md shows it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit
from bertkit.data.tasks.sample import write_sample
from command import checkpoints, record, run, same_result, start_ranks
from conftest import command_env

SMALL: dict[str, Any] = {"batch_size": 8, "seq_length": 32, "train_rows": 96, "eval_rows": 16}
ON_CPU: dict[str, Any] = {"backend": "cpu", "precision": "fp32", "settings": {"device.threads": 1}}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with the sample's data, and none of the user's own settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BERTKIT_CACHE", str(tmp_path / "cache"))
    write_sample(tmp_path / "data")
    return tmp_path


def train(**options: Any) -> bertkit.Run:
    """A run that computes nothing."""
    return bertkit.train("tiny", "sample", **SMALL | {"backend": "null", "quiet": True, "output": "run"} | options)


def script(folder: Path, text: str, env: dict[str, str]) -> Any:
    """What a script's last line says, in JSON."""
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


# ---- a run ----


def test_a_run_from_training_to_answers(here: Path) -> None:
    """The block that the plan begins with, on data that is there; the command says the same of the same run."""
    made = bertkit.train("tiny", "sample", steps=6, output="runs/sample", quiet=True, **SMALL, **ON_CPU)
    assert made.record == record(here / "runs" / "sample")
    assert made.metrics == made.record["metrics"]  # type: ignore[index]
    assert (made.folder, made.step, made.steps, len(made.losses)) == (Path("runs/sample"), 6, 6, 6)
    assert (made.finished, made.interrupted, made.exit_code, made.metric) == ("", "", 0, "accuracy")
    assert made.settings["data.train_rows"] == 96

    lines = (here / "data" / "sample" / "test.tsv").read_text().splitlines()[1:41]
    texts = [line.split("\t")[1] for line in lines]
    (here / "asked.tsv").write_text("index\tsentence\n" + "\n".join(lines) + "\n")
    threads = ("--set", "device.threads=1", "--backend", "cpu", "-d", "fp32")
    done = run(here, "predict", "runs/sample", "--file", "asked.tsv", "-o", "answers", *threads)
    assert done.returncode == 0, done.stderr
    (file,) = (here / "answers").glob("*.tsv")
    said = [line.split("\t")[1] for line in file.read_text().splitlines()[1:]]
    with bertkit.load("runs/sample", **ON_CPU) as model:
        found = model.predict(texts)
        assert [one.label for one in found] == said
        assert [one.label for one in model.predict(iter(texts))] == said
        assert all(sum(one.scores.values()) == pytest.approx(1) for one in found)

    scored = bertkit.evaluate("runs/sample", eval_rows=16, **ON_CPU)
    assert scored["metrics"] == made.metrics
    assert "baseline" in str(bertkit.compare("a=runs/sample", "b=runs/sample"))


def test_the_trainer_shows_its_plan_and_trains_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = bertkit.Trainer(model="tiny", task="sample", steps=6, backend="null", **SMALL)
    checked = trainer.check()
    assert "plan: 6 updates of 8 sequences" in capsys.readouterr().err
    assert trainer.folder == checked.folder == Path("runs/sample-tiny-seed1")
    assert not checked.folder.exists()
    assert checked.record is None


def test_numbers_of_numpy_are_written_as_numbers(here: Path) -> None:
    made = train(steps=np.int64(2), learning_rate=np.float64(3e-5))
    kept = tomllib.loads((made.folder / "recipe.toml").read_text())
    assert (kept["train"]["steps"], kept["optimizer"]["learning_rate"]) == (2, 3e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"learning_rat": 1}, ("there is no keyword 'learning_rat'; did you mean learning_rate",)),
        ({"calbacks": []}, ("there is no keyword 'calbacks'; did you mean callbacks",)),
        ({"epochs": "many"}, ("train.epochs = 'many'", "valid number")),
        ({"backend": "cpuu"}, ("cpuu", "cpu")),
        ({"settings": {"device.thread": 1}, "backend": "cpu"}, ("thread", "did you mean threads")),
        ({"data_dir": "nowhere"}, ("the data folder nowhere does not exist",)),
        ({"recipe": "demoo"}, ("demoo", "demo")),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], words: Sequence[str], here: Path) -> None:
    with pytest.raises(bertkit.UserError) as caught:
        train(**options)
    for word in words:
        assert word in str(caught.value)
    assert not (here / "run").exists()


def test_a_run_is_not_overwritten_unless_asked(here: Path) -> None:
    train(steps=1)
    with pytest.raises(bertkit.UserError, match="already holds a run"):
        train(steps=2)
    assert train(steps=2, overwrite=True).step == 2


# ---- callbacks ----


class Calls(bertkit.Callback):
    """Writes down what it was told, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            self.names.append(name)
        return super().__getattribute__(name)


def test_callbacks_are_called_in_the_order_that_is_drawn(here: Path) -> None:
    calls = Calls()
    train(steps=2, callbacks=[calls], settings={"log.every": 2, "checkpoint.every": 1})
    update = ["on_update_start", "on_update_end", "on_updates"]
    saved = ["on_checkpoint_start", "on_checkpoint"]
    scored = ["on_evaluation_start", "on_evaluation"]
    assert calls.names == ["on_start", *update, *saved, *update, *scored, *saved, "on_end", "on_close"]


def test_an_interrupted_run_is_told_as_such_and_goes_on(here: Path) -> None:
    calls = Calls()
    first = train(steps=4, steps_this_run=2, callbacks=[calls])
    assert calls.names[-2:] == ["on_interrupted", "on_close"]
    assert (first.record, first.step, first.interrupted) == (None, 2, "train.steps_this_run")
    second = train(steps=4, resume=True)
    assert (second.step, second.interrupted) == (4, "")
    assert second.metrics == train(steps=4, output="whole").metrics
    same_result(here / "run", here / "whole")


def test_an_error_in_a_callback_ends_the_run_and_closes_the_others(here: Path) -> None:
    class Breaks(bertkit.Callback):
        def on_update_end(self, run: bertkit.Run, step: int) -> None:
            raise ZeroDivisionError

    calls = Calls()
    with pytest.raises(ZeroDivisionError):
        train(steps=2, callbacks=[Breaks(), calls])
    assert calls.names[-1] == "on_close"
    assert "on_end" not in calls.names


POINTS = {  # where a callback asks for the end, once update 3 is reached: the last update then
    "on_update_start": 3, "on_update_end": 3, "on_updates": 4, "on_evaluation_start": 5, "on_evaluation": 5,
    "on_checkpoint_start": 4, "on_checkpoint": 4,
}  # fmt: skip
WHEN = {"log.every": 2, "evaluation.every": 5, "checkpoint.every": 4}


class Asks(bertkit.Callback):
    """Asks for the end at one point, where the run has come to update 3."""

    def __init__(self, point: str) -> None:
        setattr(self, point, self.ask)

    def ask(self, run: bertkit.Run, *told: Any) -> None:
        if run.step >= 3 or told[:1] == (3,):
            run.add_to_record("asked", {"after": run.step})
            run.stop("that is enough")


@pytest.mark.parametrize(("point", "last"), POINTS.items())
def test_a_callback_ends_a_run_with_its_results(point: str, last: int, here: Path) -> None:
    made = train(steps=12, callbacks=[Asks(point)], settings=WHEN)
    kept = record(here / "run")
    assert made.finished == "that is enough"
    assert kept["updates"] == len(kept["losses"]) == made.step == last
    assert list(kept["callbacks"]) == ["asked"]
    assert checkpoints(here / "run")[-1] == made.step
    scored = bertkit.evaluate("run", backend="null", eval_rows=16)
    assert scored["metrics"] == made.metrics == kept["metrics"], "those of the model that was saved"


RANKS = """
import json, sys
import bertkit

class Asks(bertkit.Callback):
    def ask(self, run, *told):
        if run.world.rank == 1 and run.step >= 3:
            run.stop("rank 1 has seen enough")

asks = Asks()
setattr(asks, sys.argv[1], asks.ask)
run = bertkit.train(
    "tiny", "sample", backend="null", steps=40, batch_size=8, seq_length=32, train_rows=96, eval_rows=16, output="run",
    callbacks=[asks], settings={"log.every": 2, "evaluation.every": 5, "checkpoint.every": 4},
)
print(json.dumps([run.step, run.finished, run.record is not None]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("point", "last"), [("on_updates", 4), ("on_evaluation", 5), ("on_checkpoint", 4)])
def test_one_process_that_asks_ends_all(point: str, last: int, here: Path) -> None:
    (here / "my.py").write_text(RANKS)
    done = start_ranks(here, 2, [point], program=["my.py"])
    assert [each.returncode for each in done] == [0, 0], done[0].stderr + done[1].stderr
    told = [json.loads(each.stdout) for each in done]
    assert told == [[last, "a callback of another process asked for it", True], [last, "rank 1 has seen enough", True]]
    assert record(here / "run")["updates"] == last


# ---- a loop of one's own ----

LOOP = """
import json, sys
import bertkit

setup = bertkit.prepare(
    "tiny", "sample", backend=sys.argv[1], precision="fp32", seq_length=32, train_rows=200, eval_rows=8,
    settings=json.loads(sys.argv[2]),
)
engine = bertkit.open_engine(setup.job, backend=sys.argv[1])
losses = []
for update in bertkit.updates(setup.train.features, batch_size=8, seed=1, steps=20):
    losses.append(float(engine.train_step(update, 5e-5)["loss"]))
engine.close()
print(json.dumps(losses))
"""


def loop(folder: Path, env: dict[str, str], backend: str, settings: dict[str, Any]) -> list[float]:
    program = f"import sys; sys.argv[1:] = {[backend, json.dumps(settings)]!r}\n{LOOP}"
    losses: list[float] = script(folder, program, env)
    return losses


@pytest.mark.slow
def test_a_loop_of_ones_own_gives_the_trainers_losses_on_any_chip(
    here: Path, gaudi_env: Callable[..., dict[str, str]]
) -> None:
    dropout = {"model.hidden_dropout": 0.0, "model.attention_dropout": 0.0}  # whose random stream is each engine's own
    on_cpu = loop(here, command_env(here), "cpu", dropout | {"device.threads": 1})
    on_gaudi = loop(here, gaudi_env(True) | {"BERTKIT_CACHE": str(here / "cache")}, "gaudi", dropout)
    assert len(on_cpu) == 20
    np.testing.assert_allclose(on_gaudi, on_cpu, rtol=0, atol=1e-5)
    constant = {"schedule.name": "constant", "schedule.warmup": 0.0, "device.threads": 1}
    trained = bertkit.train(
        "tiny", "sample", backend="cpu", precision="fp32", steps=20, batch_size=8, seq_length=32, train_rows=200,
        eval_rows=8, learning_rate=5e-5, quiet=True, output="run", settings=dropout | constant,
    )  # fmt: skip
    assert list(trained.losses) == on_cpu, "to the bit"


def test_a_loop_of_ones_own_runs_where_nothing_is_computed(here: Path) -> None:
    assert len(loop(here, command_env(here), "null", {})) == 20


def test_a_job_made_for_one_backend_opens_on_another(here: Path) -> None:
    setup = bertkit.prepare("tiny", "sample", **SMALL, **ON_CPU)
    with pytest.raises(bertkit.UserError, match="threads"):  # asked for, and the other has no such setting
        bertkit.open_engine(setup.job, backend="null")
    setup = bertkit.prepare("tiny", "sample", backend="cpu", **SMALL)
    bertkit.open_engine(setup.job, backend="null").close()
