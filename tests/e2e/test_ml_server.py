"""`bertkit serve` beside a real MLServer: the same JSON is sent to both, and `bertkit client` asks both."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml_server
from command import free_port, start
from conftest import Run, command_env
from exported import run_folder
from serve_traffic import asked

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ml_server.absent()), reason=ml_server.absent()),
]
IDS = [[2, 9, 10, 3], [2, 11, 3, 0]]
MASK = [[1, 1, 1, 1], [1, 1, 1, 0]]
TYPES = [[0, 0, 0, 0], [0, 0, 0, 0]]
TEXTS = ["w1 w2 w30", "w4", "w5 w6 w7 w8 w9 w10 w11"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_folder(tmp_path_factory.mktemp("run") / "reviews", "sample", seq_length=32)


@pytest.fixture(scope="module")
def ours(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    folder = tmp_path_factory.mktemp("ours")
    words = ("--backend", "cpu", "-d", "fp32", "--port", str(port))
    with start(folder, "serve", f"reviews={run}", *words) as process:
        assert process.stderr
        next(line for line in process.stderr if "serving" in line)
        yield f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


@pytest.fixture(scope="module")
def theirs(run: Path, ours: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("theirs")
    words = ("export", str(run), "-o", "out", "--format", "onnx", "--verify-examples", "0")
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", *words], cwd=folder, env=command_env(folder), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    status, metadata = asked(ours, "v2/models/reviews")
    assert status == 200
    with ml_server.ml_server(folder / "server", folder / "out" / "model.onnx", metadata) as address:
        yield address


def without_optional(said: dict[str, Any]) -> dict[str, Any]:
    """Without what bertkit says of inputs beyond the protocol."""
    inputs = [{key: value for key, value in one.items() if key != "optional"} for one in said.get("inputs", [])]
    return {**said, **({"inputs": inputs} if inputs else {})}


def tensor(name: str, rows: list[list[int]], flat: bool) -> dict[str, Any]:
    data = [one for row in rows for one in row] if flat else rows
    return {"name": name, "shape": [len(rows), len(rows[0])], "datatype": "INT64", "data": data}


def body(flat: bool = True, **more: Any) -> dict[str, Any]:
    named = {"input_ids": IDS, "attention_mask": MASK, "token_type_ids": TYPES}
    return {"inputs": [tensor(name, rows, flat) for name, rows in named.items()], **more}


@pytest.mark.parametrize(
    "request_body",
    [body(), body(flat=False), body(id="7"), body(outputs=[{"name": "logits"}]), body(parameters={"a": "b"})],
    ids=["flat", "nested", "id", "outputs", "parameters"],
)
def test_one_request_has_one_answer(ours: str, theirs: str, request_body: dict[str, Any]) -> None:
    found = [asked(address, "v2/models/reviews/infer", request_body) for address in (ours, theirs)]
    assert [status for status, _ in found] == [200, 200], found
    (_, mine), (_, other) = found
    assert mine["model_name"] == other["model_name"] == "reviews"
    assert mine.get("id") == request_body.get("id")
    (my_logits,), (other_logits,) = mine["outputs"], other["outputs"]
    for key in ("name", "shape", "datatype"):
        assert my_logits[key] == other_logits[key]
    np.testing.assert_allclose(my_logits["data"], other_logits["data"], atol=1e-4)


def test_health_and_metadata_have_one_form(ours: str, theirs: str) -> None:
    for path in ("v2/health/live", "v2/health/ready", "v2/models/reviews/ready", "v2/models/reviews/versions/1/ready"):
        assert [asked(address, path)[0] for address in (ours, theirs)] == [200, 200], path
    (_, mine), (_, other) = (asked(address, "v2/models/reviews") for address in (ours, theirs))
    assert mine["name"] == other["name"]
    for key in ("inputs", "outputs"):
        assert without_optional(mine)[key] == other[key]
    (_, mine), (_, other) = (asked(address, "v2") for address in (ours, theirs))
    assert set(other) <= set(mine)


def test_its_types_read_what_serve_says(ours: str) -> None:
    told = []
    for model in ("reviews", "reviews-text"):
        told.append(("MetadataModelResponse", asked(ours, f"v2/models/{model}")[1]))
    told.append(("MetadataServerResponse", asked(ours, "v2")[1]))
    told.append(("InferenceResponse", asked(ours, "v2/models/reviews/infer", body(id="1"))[1]))
    texts = {"inputs": [{"name": "text", "shape": [3], "datatype": "BYTES", "data": TEXTS}]}
    told.append(("InferenceResponse", asked(ours, "v2/models/reviews-text/infer", texts)[1]))
    for (name, said), read in zip(told, ml_server.as_read(told), strict=True):
        assert read == without_optional(said), name
    assert {one["name"] for one in told[-1][1]["outputs"]} >= {"label", "score"}


def test_mistakes_have_one_kind_of_answer(ours: str, theirs: str) -> None:
    few = body()
    few["inputs"][0]["data"] = few["inputs"][0]["data"][:-1]
    for path, sent in (("v2/models/none/infer", body()), ("v2/models/none", None), ("v2/models/reviews/infer", [])):
        (mine, said), (other, _) = (asked(address, path, sent) for address in (ours, theirs))
        assert 400 <= mine < 500, (path, said)
        assert 400 <= other < 500, path
        if "none" in path:
            assert mine == other == 404
            assert isinstance(said["error"], str)
    status, said = asked(ours, "v2/models/reviews/infer", few)
    assert status == 400
    assert "input_ids" in said["error"]


def test_the_client_has_one_answer_from_both(ours: str, theirs: str, run: Path, bertkit: Run) -> None:
    found = []
    for address in (ours, theirs):
        words = ("client", "predict", address, "-", "--run", run, "--model", "reviews", "--json")
        done = bertkit(*words, said="\n".join(TEXTS) + "\n")
        assert done.returncode == 0, done.stderr
        found.append([json.loads(line) for line in done.stdout.splitlines()])
    mine, other = found
    assert len(mine) == len(TEXTS)
    for one, two in zip(mine, other, strict=True):
        assert one["label"] == two["label"]
        assert one["probability"] == pytest.approx(two["probability"], abs=1e-4)
