"""`bertkit client` and `bertkit bench serve` against `bertkit serve` itself, with small models of random weights."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bertkit.data.tasks.sample import vocabulary
from bertkit.files.disk import write_arrays, write_json
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from command import free_port, start
from conftest import assert_one_line_error, command_env
from inference_server import QA, inference_server, nvidia, token_scores
from squad_files import reviews, write_squad

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
CONFIG = ModelConfig(32, 2, 2, 64, vocab_size=len(vocabulary()), max_position_embeddings=64)
COMPUTED = ("--backend", "cpu", "-d", "fp32", "-s", "40")
SPANS = ("-t", "squad", "--file", "dev.json", "-s", "40", "--set", "data.doc_stride=8", "--json")


def model(folder: Path, head: Head, labels: tuple[str, ...] = ()) -> None:
    folder.mkdir()
    write_json(folder / "config.json", to_mapping(CONFIG, head, labels))
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n", encoding="utf-8")
    write_arrays(folder / "model.safetensors", initial(CONFIG, head, 3), {})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    model(folder / "qa", Head("span", 2))
    write_squad(folder / "dev.json", reviews(20))
    return folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    port = free_port()
    process = start(home, "serve", "qa", "-t", "squad", *COMPUTED, "--port", str(port))
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)


def typed(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bertkit", *words], cwd=home, env=command_env(home), capture_output=True, text=True,
        timeout=200, check=False,
    )  # fmt: skip


def of(home: Path, *words: str) -> Any:
    done = typed(home, *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_squads_scores_are_those_of_evaluate(home: Path, url: str) -> None:
    asked = of(home, "client", "squad", url, "--wait", "120", "--run", "qa", *SPANS, "-b", "3", "-o", "answers")
    stride = ("--set", "data.doc_stride=8")
    own = of(home, "evaluate", "qa", "-t", "squad", "--dev", "dev.json", *COMPUTED, *stride, "--json")
    assert asked["metrics"] == pytest.approx(own["metrics"])
    assert asked["questions"] == own["examples"] == 40
    assert len(json.loads((home / asked["predictions"]).read_text())) == 40


@pytest.mark.slow
def test_a_question_has_one_answer_by_ids_and_by_texts(home: Path, url: str) -> None:
    question = ("--question", "the plot is ?", "--context", "the plot is good and the cast was dull .")
    by_ids = of(home, "client", "ask", url, "--wait", "120", "--run", "qa", "-t", "squad", "-s", "40", *question,
                "--json")  # fmt: skip
    by_texts = of(home, "client", "ask", url, *question, "--json")
    assert by_ids["answer"] == by_texts["answer"]
    assert by_ids["n_best"][0]["probability"] == pytest.approx(by_texts["score"], rel=1e-4)
    listed = of(home, "client", "models", url, "--json")
    assert [one["name"] for one in listed] == ["qa", "qa-text"]


@pytest.mark.slow
def test_a_run_is_served_measured_and_ended(home: Path) -> None:
    words = (*COMPUTED, "-t", "squad")
    load = ("--concurrency", "1,4", "--lengths", "squad384", "--seconds", "2", "-o", "load.json", "--json")
    done = typed(home, "bench", "serve", "qa", *load, "--", *words)
    assert done.returncode == 0, done.stderr
    one, four = json.loads(done.stdout)["records"]
    for made in (one, four):
        serving = made["callbacks"]["serving"]
        assert serving["errors"] == {}
        assert made["fairness"]["task"] == "squad"
        assert made["precision"]["name"] == "fp32"
        assert made["hardware"]["device"]["count"] == 1
        rates = made["throughput"]
        assert rates["sequences_per_second_per_device"] == rates["sequences_per_second"]
        assert 0 < serving["server_compute_infer_ms"] < serving["latency_mean_ms"]
        assert rates["tokens_per_second"] > rates["sequences_per_second"]
    assert four["callbacks"]["serving"]["server_sequences_per_batch"] > 1
    assert {made["fairness"]["sequence_length"] for made in (one, four)} == {40}
    assert "lengths: cut to 40 tokens, the model's maximum" in done.stderr
    (address,) = re.findall(r"model: qa at (http\S+),", done.stderr)
    assert_one_line_error(typed(home, "client", "models", address), "does not answer")
    shown = typed(home, "compare", "load.json")
    assert shown.returncode == 0
    assert "requests in flight at the server at once: 1 (" in shown.stdout
    assert "step: a request" in shown.stdout


@pytest.mark.slow
def test_a_server_that_does_not_start_says_why_in_one_line(home: Path, tmp_path: Path) -> None:
    shutil.copytree(home / "qa", tmp_path / "qa")
    (tmp_path / "qa" / "model.safetensors").write_bytes(b"no weights")
    done = typed(tmp_path, "bench", "serve", "qa", "--", "-t", "squad")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("bertkit: bertkit serve qa ended: ")
    assert "Traceback" not in done.stderr


# A model for the python backend: NVIDIA's names, and the stand-in server's function.
TENSORS = '{{ name: "{}" data_type: {} dims: [ -1 ] }}'
INPUTS = ", ".join(TENSORS.format(f"input__{number}", "TYPE_INT32") for number in range(3))
OUTPUTS = ", ".join(TENSORS.format(f"output__{number}", "TYPE_FP32") for number in range(2))
TRITON_CONFIG = f"""
name: "bert"
backend: "python"
max_batch_size: 16
input [ {INPUTS} ]
output [ {OUTPUTS} ]
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
"""
TRITON_MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        ids, types, mask = (pb_utils.get_input_tensor_by_name(request, f"input__{n}").as_numpy() for n in range(3))
        found = [np.where(mask > 0, token_scores(ids, types, salt), 99.0).astype(np.float32) for salt in range(2)]
        return pb_utils.InferenceResponse([pb_utils.Tensor(f"output__{n}", one) for n, one in enumerate(found)])

"""


@pytest.mark.slow
def test_triton_itself_is_asked_and_measured(home: Path, tmp_path: Path) -> None:
    triton = pytest.importorskip("triton_server", reason="tests/triton_server.py starts it")
    if absent := triton.absent():
        pytest.skip(absent)
    folder = tmp_path / "repository" / "bert"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(TRITON_CONFIG)
    (folder / "1" / "model.py").write_text(TRITON_MODEL + inspect.getsource(token_scores))
    (tmp_path / "scratch").mkdir()
    with triton.triton_server(folder.parent, tmp_path / "scratch") as address:
        asked = of(home, "client", "squad", f"http://{address}", "--run", "qa", *SPANS)
        load = ("--concurrency", "4", "--lengths", "40", "--seconds", "3", "-o", str(tmp_path / "r.json"), "--json")
        (made,) = of(home, "bench", "serve", f"http://{address}", *load)["records"]
    with inference_server(bert=nvidia(QA)) as stand_in:
        assert asked["metrics"] == of(home, "client", "squad", stand_in.url, "--run", "qa", *SPANS)["metrics"]
    serving = made["callbacks"]["serving"]
    assert serving["errors"] == {}
    assert serving["server_sequences_per_batch"] > 1
    assert serving["server_compute_infer_ms"] > 0
