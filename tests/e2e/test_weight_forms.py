"""One model in every form that people have it in: each gives the answers of the folder that it was made from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tf1_bundles
from bertkit.files.disk import read_arrays
from bertkit.model.formats.names import to_tf1, transposed
from command import made_model, run

AT = ("-t", "sample", "--backend", "cpu", "-d", "fp32", "-s", "32", "--set", "data.eval_rows=40", "--json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A model's folder: what a run leaves, without its record."""
    return made_model(tmp_path_factory.mktemp("made"), sample_dir)


@pytest.fixture(scope="module")
def wanted(model: Path, sample_dir: Path) -> dict[str, float]:
    return scores(model.parent, "model", sample_dir)


def scores(folder: Path, name: str, data: Path) -> dict[str, float]:
    done = run(folder, "evaluate", name, *AT, "--data-dir", data)
    assert done.returncode == 0, done.stderr
    metrics: dict[str, float] = json.loads(done.stdout)["metrics"]
    return metrics


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def lightning(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    import torch

    state = {f"model.{name}": torch.nn.Parameter(tensor) for name, tensor in tensors(arrays).items()}
    torch.save({"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.5"}, folder / "epoch=3.ckpt")
    return "epoch=3.ckpt"


def in_the_old_format(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    import torch

    state = {f"module.{name}": tensor for name, tensor in tensors(arrays).items()}
    torch.save({"model_state_dict": state, "epoch": 1}, folder / "x.pth", _use_new_zipfile_serialization=False)
    return "x.pth"


def partitioned(folder: Path, arrays: dict[str, np.ndarray]) -> str:
    """As a training on parameter servers saves a module of TensorFlow Hub with a head."""
    variables = {}
    for name, array in arrays.items():
        theirs = str(to_tf1(name))
        variables[f"module/{theirs}" if theirs.startswith("bert/") else theirs] = (
            array.T if transposed(theirs) else array
        )
    larger = {name: tf1_bundles.rows(len(array), 3) for name, array in variables.items() if array.size > 1000}
    matrices = {name: cuts for name, cuts in larger.items() if variables[name].ndim == 2}
    assert len(matrices) > 5
    others = {"input/file_name": (tf1_bundles.STRING, b"\3abc"), "done": (tf1_bundles.BOOL, b"\1")}
    tf1_bundles.write(folder / "model.ckpt-20", variables, matrices, others)
    return "model.ckpt-20"


@pytest.mark.slow
@pytest.mark.parametrize("form", [lightning, in_the_old_format, partitioned], ids=lambda form: form.__name__)
def test_every_form_gives_the_same_answers(
    form: Callable[[Path, dict[str, np.ndarray]], str],
    model: Path,
    wanted: dict[str, float],
    sample_dir: Path,
    tmp_path: Path,
) -> None:
    pytest.importorskip("torch")
    folder = Path(shutil.copytree(model, tmp_path / "theirs"))
    arrays = read_arrays(folder / "model.safetensors")[0]
    (folder / "model.safetensors").unlink()
    name = form(folder, arrays)
    assert scores(tmp_path, f"theirs/{name}", sample_dir) == wanted
    done = run(tmp_path, "convert", f"theirs/{name}", "out", "--json")
    assert done.returncode == 0, done.stderr
    notes = json.loads(done.stdout)["notes"]
    if form is partitioned:
        assert "left out, since no BERT has it: input/file_name (string)" in notes
    found = read_arrays(tmp_path / "out" / "model.safetensors")[0]
    assert found.keys() == arrays.keys()
    assert all(found[key].tobytes() == array.tobytes() for key, array in arrays.items())
