"""`bertkit serve` as a user has it: started, asked by curl and Triton's client, vandalized, ended by a signal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import serve_traffic
from command import free_port, made_model, start, wait_for
from conftest import Run, assert_one_line_error, command_env
from serve_process import Server
from triton_server import client

pytest.importorskip("uvicorn", reason="uvicorn is not installed")
pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
OWN = ("-t", "sample", "--backend", "cpu", "-d", "fp32", "-s", "48")
TEXTS = ["a fine plot", "dull", "the actors were good and the story was bad", "x"]


@contextlib.contextmanager
def served(folder: Path, *arguments: str | Path) -> Iterator[Server]:
    server = Server(folder, *arguments, *OWN)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.reader.join(10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    return made_model(tmp_path_factory.mktemp("model"), sample_dir)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Iterator[Server]:
    with served(tmp_path_factory.mktemp("server"), f"sample={model}") as found:
        yield found


def expected(texts: list[str], model: Path, folder: Path) -> list[Any]:
    """What `bertkit predict` says, as /predict would."""
    done = subprocess.run(
        [sys.executable, "-m", "bertkit", "predict", str(model), "-", "--json", "--top-k", "2", *OWN],
        cwd=folder, env=command_env(folder), input="\n".join(texts) + "\n", capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    return [dict(zip(one["labels"], one["probabilities"], strict=True)) for one in found]


def test_answers_are_those_of_predict(server: Server, model: Path, tmp_path: Path) -> None:
    for found, wants in zip(server.predict(TEXTS), expected(TEXTS, model, tmp_path), strict=True):
        assert found["scores"] == pytest.approx(wants, abs=1e-6)
        assert found["label"] == next(iter(wants))


def test_the_line_to_try_works(server: Server) -> None:
    words = shlex.split(server.line(r"try: (curl .*)")[1])
    if not shutil.which("curl"):
        pytest.skip("no curl here")
    done = subprocess.run([*words, "-s"], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout)["label"] in ("0", "1")


@pytest.mark.slow  # its package comes with the slow tests
def test_tritons_client_is_answered(server: Server) -> None:
    http = client()
    asked = http.InferenceServerClient(server.address.removeprefix("http://"))
    assert asked.is_server_live()
    assert asked.is_server_ready()
    assert asked.is_model_ready("sample", "1")
    assert asked.get_server_metadata()["name"] == "bertkit"
    assert asked.get_model_metadata("sample-text")["inputs"][0]["name"] == "text"
    assert [one["name"] for one in asked.get_model_repository_index()] == ["sample", "sample-text"]
    text = http.InferInput("text", [len(TEXTS)], "BYTES").set_data_from_numpy(np.array(TEXTS, object))
    plain = server.predict(TEXTS)
    for outputs in (None, [http.InferRequestedOutput("label", binary_data=False), http.InferRequestedOutput("score")]):
        found = asked.infer("sample-text", [text], outputs=outputs, request_id="7")
        labels = [one if isinstance(one, str) else one.decode() for one in found.as_numpy("label").tolist()]
        assert labels == [one["label"] for one in plain]
        assert found.as_numpy("score") == pytest.approx([one["probability"] for one in plain], abs=1e-6)
        assert found.get_response()["id"] == "7"
    ids = np.array([[2, 9, 10, 3, 0], [2, 11, 3, 0, 0]], np.int64)
    tensors = []
    for name, values in (("input_ids", ids), ("attention_mask", (ids > 0).astype(np.int64))):
        tensors.append(http.InferInput(name, [2, 5], "INT64").set_data_from_numpy(values))
    assert asked.infer("sample", tensors).as_numpy("logits").shape == (2, 2)
    assert asked.get_inference_statistics("sample")["model_stats"][0]["inference_stats"]["success"]["count"] >= 3
    with pytest.raises(http.InferenceServerException, match="no model 'none'"):
        asked.infer("none", tensors)
    asked.load_model("sample")
    assert server.predict(TEXTS) == plain
    asked.close()


def test_vandals_get_their_status_and_others_their_answers(server: Server) -> None:
    answers = server.predict(TEXTS)
    known = [[{"model": "sample", "text": text}, one] for text, one in zip(TEXTS, answers, strict=True)]
    known.append([{"model": "sample", "text": TEXTS * 5}, answers * 5])
    found = serve_traffic.run(server.address, known, seconds=4, clients=3, vandals=3)
    assert found.wrong == []
    assert found.statuses["200"] > 20
    assert len(found.vandals) > 8
    assert not [line for line in server.lines if "Traceback" in line]


def test_a_port_that_is_taken_is_one_line(server: Server, bertkit: Run, model: Path) -> None:
    port = server.address.rpartition(":")[2]
    done = bertkit("serve", model, "-t", "sample", "--port", port)
    assert_one_line_error(done, f":{port}: Address already in use", "--port")


def test_what_cannot_be_served_is_one_line(bertkit: Run, tmp_path: Path) -> None:
    assert_one_line_error(bertkit("serve", "nowhere", "--port", "0"), "nowhere")
    size = "evaluation.batch_size=8"
    assert_one_line_error(bertkit("serve", "run", "--set", size, "--port", "0"), "--max-sequences")
    assert_one_line_error(bertkit("serve", "a/run", "b/run", "--port", "0"), "two runs are called run")


def test_a_signal_lets_the_queue_drain(model: Path, tmp_path: Path) -> None:
    with served(tmp_path, f"sample={model}", "--max-tokens", "64") as server:
        plain = server.predict(TEXTS)
        found: list[Any] = []

        def ask() -> None:
            try:
                found.append(serve_traffic.asked(server.address, "/predict", {"text": TEXTS * 100}))
            except OSError as error:  # it came when nobody listened any more
                found.append((0, str(error)))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        for thread in threads:
            thread.start()
        metrics = f"{server.address}/v2/models/sample/stats"
        wait_busy(metrics)
        assert server.end() == 0
        for thread in threads:
            thread.join()
        assert [status for status, _ in found] == [200, 200]
        # Sums of fp32 may be taken in another order beside other sequences.
        assert all(serve_traffic.difference(answers, plain * 100) < 1e-6 for _, answers in found)
        assert server.line(r"ending: (\d) requests are being answered")[1] in "12"


def wait_busy(address: str) -> None:
    """Until the server computes something beyond the first request."""
    import urllib.request

    end = time.monotonic() + 30
    while True:
        with urllib.request.urlopen(address, timeout=30) as answer:
            if json.loads(answer.read())["model_stats"][0]["execution_count"] > 1:
                return
        assert time.monotonic() < end


# ---- several processes ----


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_a_killed_process_is_started_again_while_the_other_answers(model: Path, tmp_path: Path) -> None:
    with served(tmp_path, f"sample={model}", "--workers", "2") as server:
        pids = [int(server.line(rf"process {number}: pid (\d+)")[1]) for number in (0, 1)]
        assert len({frozenset(os.sched_getaffinity(pid)) for pid in pids}) == 2
        plain = server.predict(TEXTS)
        os.kill(pids[0], signal.SIGKILL)
        server.line(r"process 0 \(pid \d+\) ended: killed by SIGKILL; it is started again")
        answered = 0
        until = time.monotonic() + 60
        while len([line for line in server.lines if re.search(r"process 0: pid", line)]) < 2 or answered < 20:
            assert server.predict(TEXTS) == plain
            answered += 1
            assert time.monotonic() < until
        second = [int(match[1]) for line in server.lines if (match := re.search(r"process 0: pid (\d+)", line))][-1]
        assert sorted(os.sched_getaffinity(second)) != sorted(os.sched_getaffinity(pids[1]))
        total = sum_of_successes(server)
        assert total >= answered
        assert server.end() == 0
        assert not [line for line in server.lines if "Fatal" in line or "Traceback" in line]
        for pid in (second, pids[1]):
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU")
def test_a_client_that_waited_for_the_server_is_answered_by_every_process(model: Path, tmp_path: Path) -> None:
    """Its connections, which it keeps, are not all the first one's because that one was ready first."""
    port = free_port()
    process = start(tmp_path, "serve", f"sample={model}", "--workers", "2", "--port", str(port), *OWN)
    connections = [HTTPConnection("127.0.0.1", port, timeout=60) for _ in range(40)]
    wait_for(lambda: connected(connections[0]), process)
    for connection in connections:
        connection.request("POST", "/predict", json.dumps({"text": "fine"}))
        answer = connection.getresponse()
        assert (answer.status, bool(answer.read())) == (200, True)
        connection.close()
    process.send_signal(signal.SIGTERM)
    _, lines = process.communicate(timeout=60)
    answered = [sum(f"[{number}] POST /predict 200" in line for line in lines.splitlines()) for number in (0, 1)]
    assert sum(answered) == 40, lines
    assert min(answered) > 3, answered  # each connection is one's or the other's by chance


def connected(connection: HTTPConnection) -> bool:
    with contextlib.suppress(OSError):
        connection.connect()
        return True
    return False


def sum_of_successes(server: Server) -> float:
    """Over all processes, the killed one's too."""
    import urllib.request

    with urllib.request.urlopen(f"{server.address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return float(re.search(r'bertkit_requests_total\{model="sample",outcome="success"\} (\S+)', text)[1])  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_changed_run_is_loaded_without_a_dropped_request(model: Path, tmp_path: Path, workers: str) -> None:
    """Every answer is the old model's or the new one's, and at the end the new one's."""
    from safetensors.numpy import load_file, save_file

    if int(workers) > len(os.sched_getaffinity(0)):
        pytest.skip("one CPU")
    run = tmp_path / "run"
    shutil.copytree(model, run)
    with served(tmp_path, f"sample={run}", "--watch", "--workers", workers) as server:
        old = server.predict(TEXTS)
        weights = load_file(run / "model.safetensors")
        weights["classifier.bias"] = weights["classifier.bias"] + np.array([0.0, 3.0], np.float32)
        save_file(weights, tmp_path / "new.safetensors")
        os.replace(tmp_path / "new.safetensors", run / "model.safetensors")
        seen, until = [], time.monotonic() + 60
        while len([line for line in server.lines if "was loaded anew" in line]) < int(workers):
            seen.append(server.predict(TEXTS))
            assert time.monotonic() < until, server.lines
        last = [server.predict(TEXTS) for _ in range(5)]
        assert all(one == last[0] for one in last)
        assert last[0] != old
        assert all(one in (old, last[0]) for one in seen)
        (run / "model.safetensors").write_bytes(b"damaged")
        server.line(r"could not be loaded anew and is served as it was")
        assert server.predict(TEXTS) == last[0]
        assert server.end() == 0
