"""The scripts and the notebook in `examples/`, and a notebook's kernel that is interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

from command import checkpoints, events
from conftest import ROOT, command_env

EXAMPLES = ROOT / "examples"
SCRIPTS = {
    "train": "updates; everything is in runs/train",
    "early_stopping": "of 12 updates: ",
    "callbacks": "'largest_gradient': {'norm': ",
    "own_loop": "on 40 examples",
    "predict": "Prediction(label=",
    "compare": "peak learning rate, scaling applied: 0.0001 (rate 0.0001); 0.0005 (rate 0.0005)",
    "own_data": "labels: billing, delivery, returns",
    "resume": "ended by train.steps_this_run after 5 of 12 updates; the record: None",
}
TINY = {  # what the examples leave open
    "BERTKIT_BACKEND": "cpu", "BERTKIT_TRAIN_STEPS": "12", "BERTKIT_TRAIN_BATCH_SIZE": "8",
    "BERTKIT_DEVICE_THREADS": "1", "BERTKIT_DATA_TRAIN_ROWS": "100", "BERTKIT_DATA_EVAL_ROWS": "40",
}  # fmt: skip


def test_every_script_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SCRIPTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_runs(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        cwd=tmp_path,
        env=command_env(tmp_path) | TINY,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert SCRIPTS[name] in done.stdout


# ---- notebooks ----


@pytest.fixture
def kernel_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The kernel's environment, which it takes from this process; its folder."""
    for name in [name for name in os.environ if name.startswith("BERTKIT_")]:
        monkeypatch.delenv(name)
    for name, value in (TINY | {"BERTKIT_CACHE": str(tmp_path / "cache")}).items():
        monkeypatch.setenv(name, value)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    return tmp_path


def client(book: Any, folder: Path) -> nbclient.NotebookClient:
    return nbclient.NotebookClient(book, timeout=240, resources={"metadata": {"path": str(folder)}})


@pytest.mark.slow
def shown(cell: Any) -> dict[str, str]:
    """A cell's output: what stands on its streams, and what it displays."""
    found: dict[str, str] = {}
    for output in cell.outputs:
        kind = output.get("name", output.output_type)
        found[kind] = found.get(kind, "") + (output.get("text") or output.data["text/plain"])
    return found


def test_the_notebook_runs_and_shows_one_bar(kernel_env: Path) -> None:
    book = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells), "kept without output"
    client(book, kernel_env).execute()
    codes = [shown(cell) for cell in book.cells if cell.cell_type == "code"]
    training, scores, answers = codes[1], codes[2], codes[3]
    assert "stderr" not in {name for code in codes for name in code}, "notebooks colour it as errors"
    assert "ipywidgets" not in str(codes)
    assert training["display_data"].count("training") == 1
    assert "  12/12  loss " in training["display_data"]
    assert "training 12/12" not in training["stdout"], "a bar, not lines"
    assert "update 12 " in training["stdout"]
    assert "'accuracy'" in scores["stdout"]
    assert "Prediction(label=" in answers["stdout"]


INTERRUPTED = """
import os, signal, bertkit

class Interrupts(bertkit.Callback):
    def on_update_start(self, run, step):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)  # what `Kernel -> Interrupt` sends

bertkit.get_data("sample", quiet=True)
run = bertkit.train("tiny", "sample", recipe="demo", output="run", callbacks=[Interrupts()])
print("returned", run.step, run.interrupted, run.record, run.exit_code)
"""
RESUMED = """
run = bertkit.train("tiny", "sample", recipe="demo", output="run", resume=True)
print("ended", run.step, sorted(run.metrics))
"""


@pytest.mark.slow
def test_an_interrupted_kernel_saves_the_run_and_goes_on(kernel_env: Path) -> None:
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in (INTERRUPTED, RESUMED)])
    client(book, kernel_env).execute()
    first, second = (shown(cell)["stdout"] for cell in book.cells)
    assert "stopped by SIGINT after update 5 of 12, which is saved" in first
    assert "resume=True" in first
    assert "returned 5 SIGINT None 130" in first
    assert "resume: continuing after update 5 of 12" in second
    assert "ended 12 ['accuracy', 'f1']" in second
    assert checkpoints(kernel_env / "run")[-1] == 12
    assert [one["step"] for one in events(kernel_env / "run") if one["event"] == "update"] == list(range(1, 13))
