"""`bertkit bench serve` as typed, against a small server in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.bench.requests import POOL, make_requests
from bertkit.bench.served import network
from bertkit.bench.server_stats import ServerTimes, between
from bertkit.cli.main import main
from bertkit.comparison.entries import entry
from bertkit.data.lengths import find_distribution
from bertkit.engine.inference_protocol import decode_request
from bertkit.engine.remote import input_specs, open_model
from bertkit.errors import UserError
from bertkit.files.http import server_at
from bertkit.records.files import load_all
from inference_server import CLASSIFIER, QA, TEXTS, InferenceServer, StandInModel, inference_server, nvidia

Typed = Callable[..., tuple[int, str, list[str]]]
SHORT = ("--seconds", "0.4", "--warmup", "0.1", "--lengths", "12", "-o", "r.json", "--overwrite")


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(["bench", "serve", *words])
        shown = capsys.readouterr()
        return int(str(end.value.code or 0)), shown.out, shown.err.splitlines()

    return run


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    with inference_server(qa=QA) as made:
        made.delay = 0.01
        yield made


def records() -> list[dict[str, Any]]:
    return [dict(one.mapping) for one in load_all(Path("r.json"))]


def test_a_record_a_cell_with_rates_latencies_and_the_servers_own_times(typed: Typed, server: InferenceServer) -> None:
    code, out, errors = typed(server.url, "--concurrency", "1,3", "-b", "2", *SHORT)
    assert code == 0, errors
    one, three = records()
    assert [made["config"]["concurrency"] for made in (one, three)] == [1, 3]
    for made in (one, three):
        counted, rates = made["throughput"]["counted"], made["throughput"]
        assert counted["sequences"] == 2 * counted["updates"] > 0
        assert counted["tokens"] == 12 * counted["sequences"]
        assert rates["sequences_per_second"] == pytest.approx(counted["sequences"] / 0.3, rel=1e-4)
        assert rates["tokens_per_second"] == pytest.approx(12 * rates["sequences_per_second"], rel=1e-4)
        steps = made["time"]["step_seconds"]
        assert 0.01 < steps["p50"] <= steps["p90"] <= steps["p95"] <= steps["p99"] <= steps["p100"]
        assert made["time"]["step_of"] == "a request"
        serving = made["callbacks"]["serving"]
        assert serving["errors"] == {}
        assert serving["server_queue_ms"] == pytest.approx(1.0, abs=0.3)  # a request is counted when it comes
        assert serving["server_compute_infer_ms"] > 10
        assert serving["latency_mean_ms"] >= (serving["network_ms"] or 0.0) >= 0
        assert (
            made["fairness"] | {"measures": "infer", "task": "squad", "sequence_length": 12, "global_batch": 2}
            == (made["fairness"])
        )
        assert made["data"]["train"]["mean_tokens"] == 12
    assert three["throughput"]["sequences_per_second"] > 1.5 * one["throughput"]["sequences_per_second"]
    headings = " ".join(out.split("warm-up:")[0].split())
    for heading in ("Inferences/Second", "p50", "p90", "p95", "p99", "avg", "Network+Server", "Compute", "Errors"):
        assert heading in headings
    assert out.count("0.000") == 0
    assert errors[-1] == "record: r.json"


def test_requests_are_padded_and_shaped_as_the_server_says(typed: Typed) -> None:
    with inference_server(bert=nvidia(QA, 40)) as server:
        code, _, errors = typed(server.url, "-b", "3", "--lengths", "mrpc", "-s", "40", "--seconds", "0.3", "-o", "r")
    assert code == 0, errors
    assert set(server.counts.shapes) == {(3, 40)}


def test_an_open_loop_counts_from_the_moment_a_request_was_due(typed: Typed, server: InferenceServer) -> None:
    code, out, errors = typed(server.url, "--rate", "60", *SHORT)
    assert code == 0, errors
    (made,) = records()
    serving = made["callbacks"]["serving"]
    assert made["config"]["request_rate"] == 60
    assert made["config"]["concurrency"] is None
    assert serving["requests"] == pytest.approx(18, abs=12)
    assert serving["client_late_p99_ms"] >= 0
    assert "due/s" in out
    assert "the client sent 99 of 100 requests within" in out


def test_errors_are_counted_and_never_dropped(typed: Typed, server: InferenceServer) -> None:
    server.fail_every = 3
    code, out, errors = typed(server.url, "--concurrency", "2", *SHORT)
    assert code == 1
    (made,) = records()
    serving = made["callbacks"]["serving"]
    assert list(serving["errors"]) == ["HTTP 500"]
    failed = serving["errors"]["HTTP 500"]
    assert serving["requests"] == made["time"]["steps_timed"] + failed
    assert failed == pytest.approx(serving["requests"] / 3, abs=2)
    assert f"{failed} x HTTP 500" in out
    assert any("requests failed" in line for line in errors)


def test_a_queue_that_is_full_is_an_error_of_the_load(typed: Typed, server: InferenceServer) -> None:
    assert typed(server.url, *SHORT)[0] == 0
    server.busy = 1_000_000
    code, out, _ = typed(server.url, *SHORT)
    (made,) = records()
    assert (code, made["status"]) == (1, "failed")
    assert "HTTP 429, the queue is full" in made["reason"]
    assert "failed: 12, 1, 1: " in out


def test_requests_repeat_for_a_seed_and_have_the_lengths_of_the_data(server: InferenceServer) -> None:
    model = open_model(server_at(server.url, 5), "qa")
    specs = input_specs(model)
    one, same = (make_requests(model, specs, "mrpc", 2, 0, 50, 7) for _ in range(2))
    assert one.bodies == same.bodies
    assert make_requests(model, specs, "mrpc", 2, 0, 50, 8).bodies != one.bodies
    assert one.lengths.shape == (POOL, 2)
    assert one.lengths.mean() == pytest.approx(53.2, rel=0.01)
    content, headers = one.bodies[3]
    asked = decode_request(content, headers["Inference-Header-Content-Length"])
    values = {tensor.name: tensor.values for tensor in asked.inputs}
    assert {array.shape for array in values.values()} == {(2, int(one.lengths[3].max()))}
    assert 0 <= values["input_ids"].min() <= values["input_ids"].max() < 50
    assert values["attention_mask"].sum(1).tolist() == one.lengths[3].tolist()
    assert one.tokens(3 + POOL) == int(one.lengths[3].sum())


def test_mixed_lengths_have_equal_shares(server: InferenceServer) -> None:
    model = open_model(server_at(server.url, 5), "qa")
    mixed = make_requests(model, input_specs(model), "sst2+400", 1, 0, 50, 1)
    assert (mixed.lengths == 400).mean() == pytest.approx(0.5)
    assert mixed.title == "SST-2 dev sentences, measured; every sequence of 400 tokens"
    named = make_requests(model, input_specs(model), "mixed", 1, 0, 50, 1)
    assert named.lengths.mean() == pytest.approx((25.2 + 53.2 + 178.5) / 3, rel=0.02)
    assert find_distribution("sst2").title in named.title
    cut = make_requests(model, input_specs(model), "mixed", 1, 64, 50, 1)
    assert cut.lengths.max() == 64


def test_compare_shows_a_servers_latency_and_the_load_as_a_condition(typed: Typed, server: InferenceServer) -> None:
    assert typed(server.url, "--concurrency", "2", *SHORT)[0] == 0
    (record,) = load_all(Path("r.json"))
    found = entry(record)
    assert found.figures["step_p99"] == pytest.approx(1e3 * record.mapping["time"]["step_seconds"]["p99"])
    assert found.facts["concurrency"] == 2
    assert found.step_of == "a request"
    assert (found.place.concurrency, found.place.mean_tokens, found.place.precision) == (2, 12, None)
    assert (found.place.device, found.place.devices) == (None, None), "the client's machine is not the server's"
    assert found.name.endswith("qa 12 b1 c2")


FAULTS: dict[tuple[str, ...], str] = {
    ("--concurrency", "2", "--rate", "3"): "--concurrency and --rate exclude each other",
    ("--concurrency", "0"): "--concurrency 0: '0' is not a whole number above 0",
    ("--concurrency", "5000"): "is over 1024",
    ("--rate", "-1"): "--rate -1 is no number of requests per second",
    ("--rate", "fast"): "--rate fast is no number",
    ("--lengths", "sqad384"): "there is no length distribution 'sqad384'; did you mean squad384",
    ("--lengths", "mrpc+"): "there is no length distribution ''",
    ("--seconds", "1", "--warmup", "1"): "--warmup 1 leaves nothing of --seconds 1",
    ("--model", "qaa"): "has no model 'qaa'; did you mean qa?",
    ("--", "-d", "bf16"): "is no run's folder; options of serve are for a run",
}


@pytest.mark.parametrize("words", FAULTS, ids=["-".join(words) for words in FAULTS])
def test_a_fault_is_one_line(typed: Typed, server: InferenceServer, words: tuple[str, ...]) -> None:
    code, _, errors = typed(server.url, *words)
    assert (code, len(errors)) == (2, 1)
    assert FAULTS[words] in errors[0]
    assert not Path("runs").exists()


def test_a_folder_that_is_not_there_is_no_address(typed: Typed) -> None:
    assert "there is no folder runs/none; check the path" in typed("runs/none")[2][0]


def test_a_model_of_texts_or_of_other_outputs_is_refused(typed: Typed) -> None:
    with inference_server(texts=TEXTS) as server:
        assert "has 0 models of token ids; it has texts" in typed(server.url)[2][0]
    other = StandInModel(QA.inputs, (("embedding", "FP32", [-1, 2]),), lambda i: {"embedding": np.zeros((1, 2))})
    with inference_server(other=other) as server:
        code, out, _ = typed(server.url, *SHORT)
        assert code == 1
        assert "answers with none of end_logits, logits" in out


def test_what_a_server_tells_of_its_model_is_used(typed: Typed, server: InferenceServer) -> None:
    server.facts = {"task": "mrpc", "precision": "bf16", "seq_length": 20}
    code, _, errors = typed(server.url, *SHORT, "--lengths", "mrpc")
    assert code == 0, errors
    (made,) = records()
    assert made["fairness"]["task"] == "mrpc"
    assert made["precision"]["name"] == "bf16"
    assert made["fairness"]["sequence_length"] == 20
    assert "lengths: cut to 20 tokens, the model's maximum" in errors
    typed(server.url, *SHORT, "--lengths", "mrpc", "-s", "30")
    assert records()[0]["fairness"]["sequence_length"] == 30


def test_a_classifier_is_measured_too_and_what_it_tells_is_kept(typed: Typed) -> None:
    with inference_server(classes=CLASSIFIER) as server:
        code, out, errors = typed(server.url, *SHORT, "--json")
    assert code == 0, errors
    made = json.loads(out)["records"][0]
    assert made["fairness"]["task"] is None
    assert made["backend"]["name"] == "stand-in"


def test_a_server_without_statistics_has_gaps(
    typed: Typed, server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference_server.Handler._stats", lambda self, name: {"no": "thing"})
    code, _, errors = typed(server.url, *SHORT)
    assert code == 0, errors
    serving = records()[0]["callbacks"]["serving"]
    assert (serving["server_queue_ms"], serving["network_ms"]) == (None, None)


def test_what_neither_side_accounts_for_is_the_network() -> None:
    parts = dict.fromkeys(["server_compute_input_ms", "server_compute_output_ms"])
    known = {"latency_mean_ms": 10.0, "client_send_ms": 0.5, "client_receive_ms": 0.5} | parts
    assert network(known | {"server_queue_ms": 2.0, "server_compute_infer_ms": 4.0}) == 3.0
    assert network(known | {"server_queue_ms": 2.0, "server_compute_infer_ms": 9.0}) is None, "no negative time"
    assert network(known | {"server_queue_ms": None, "server_compute_infer_ms": None}) is None


def test_statistics_are_means_between_two_readings() -> None:
    before = ServerTimes({"queue": 10, "compute_infer": 10}, {"queue": 10_000_000, "compute_infer": 0}, 20, 10)
    after = ServerTimes({"queue": 30, "compute_infer": 30}, {"queue": 50_000_000, "compute_infer": 80_000_000}, 80, 25)
    found = between(before, after)
    assert (found["queue_ms"], found["compute_infer_ms"], found["sequences_per_batch"]) == (2.0, 4.0, 4.0)
    assert found["compute_input_ms"] is None
    assert set(between(None, after).values()) == {None}
    assert between(after, after)["queue_ms"] is None


def test_a_model_of_fixed_length_refuses_longer_sequences() -> None:
    with inference_server(bert=nvidia(QA, 40)) as server:
        model = open_model(server_at(server.url, 5), "bert")
        with pytest.raises(UserError, match="takes sequences of 40 tokens, not 50; cut them: -s 40"):
            make_requests(model, input_specs(model), "50", 1, 60, 100, 1)
