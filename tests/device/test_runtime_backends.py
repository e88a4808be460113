"""ONNX Runtime and OpenVINO as backends: they answer as the engine does, in `bertkit serve` too, and train nothing."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit
from bertkit.cli.main import main
from bertkit.engine.registry import choose
from bertkit.errors import UserError
from exported import run_folder
from served import client

pytest.importorskip("onnx", reason="onnx is not installed")
RUNTIMES = ["onnxruntime", pytest.param("openvino", marks=pytest.mark.slow)]
TEXTS = ["w1 w2 w3", "w5", "w7 w8 w9 w10 w11 w12 w13 w14 w15 w16", "w20 w3 w3"]


def needs(runtime: str) -> None:
    if util.find_spec(runtime) is None:
        pytest.skip(f"no {runtime}")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_server_answers_by_it_as_by_the_engine(runtime: str, tmp_path: Path) -> None:
    needs(runtime)
    run = run_folder(tmp_path / "run", "sample", seq_length=40)
    found: dict[str, Any] = {}
    for backend in ("cpu", runtime):
        predictor = bertkit.load(run, backend=backend, precision="fp32", settings={"device.threads": 1})
        with client({"run": predictor}) as asked:
            found[backend] = asked.post("/predict", json={"text": TEXTS}).json()
            metrics = asked.get("/metrics").text
            platform = asked.get("/v2/models/run").json()["platform"]
        assert f'bertkit_model_info{{engine="{backend}",model="run",precision="fp32"}} 1.0' in metrics
        assert platform == f"bertkit_{backend}"
        assert predictor.loaded.engine.describe()["threads"].startswith("1")
    for ours, theirs in zip(found["cpu"], found[runtime], strict=True):
        assert ours["label"] == theirs["label"]
        np.testing.assert_allclose(list(ours["scores"].values()), list(theirs["scores"].values()), atol=1e-4)
    assert len({one["probability"] for one in found["cpu"]}) == len(TEXTS)


def test_the_number_of_threads_reaches_the_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    seen, session = [], onnxruntime.InferenceSession

    def opened(model: bytes, options: Any, **others: Any) -> Any:
        seen.append(options.intra_op_num_threads)
        return session(model, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", opened)
    run = run_folder(tmp_path / "run", "sample", seq_length=40)
    with bertkit.load(run, backend="onnxruntime", settings={"device.threads": 2}):
        assert seen == [2]


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from bertkit_onnx import backends

    monkeypatch.setattr(backends, "installed", lambda *packages: {"onnx": "1"})
    for name in ("onnxruntime", "openvino"):
        with pytest.raises(UserError, match=rf"{name} not installed; pip install 'bertkit\[(onnx|openvino)\]'"):
            choose(name)


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        (("train", "-m", "RUN", "-t", "sample"), "train by another: choose with --backend"),
        (("bench", "train", "-m", "tiny", "-b", "2", "--lengths", "sst2"), "measure `bench infer`"),
        (("evaluate", "RUN", "-d", "bf16"), "it has fp32, int8: choose with -d"),
        (("export", "RUN", "-o", "OUT", "--format", "onnx", "-t", "sample"), "computes what is exported"),
    ],
)
def test_what_it_does_not_do_is_one_line(
    words: tuple[str, ...], cure: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs("onnxruntime")
    places = {"RUN": str(run_folder(tmp_path / "run", "sample", seq_length=40)), "OUT": str(tmp_path / "out")}
    with pytest.raises(SystemExit) as ended:
        main([*(places.get(word, word) for word in words), "--backend", "onnxruntime"])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert cure in said.splitlines()[-1]
