"""The server's routes, asked in this process: answers, and every fault as `{"error": …}` with its status."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.engine.inference_protocol import InferRequest, RequestedOutput, decode_response, encode_request
from bertkit.engine.protocol_tensors import tensor
from served import client, engine_of, error_of, stand_in, wait_until

PAIR = ("good plot", "bad film")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("served")
    return {"pairs": stand_in(folder, "mrpc"), "single": stand_in(folder, "sample"), "span": stand_in(folder, "squad2")}


@pytest.fixture(scope="module")
def asked(runs: dict[str, Any]) -> Iterator[Any]:
    with client(runs) as found:
        yield found


def infer(asked: Any, model: str, request: InferRequest, binary: bool) -> Any:
    body = encode_request(request, binary_inputs=binary)
    found = asked.post(f"/v2/models/{model}/infer", content=body.content, headers=body.headers)
    assert found.status_code == 200, found.text
    return decode_response(found.content, found.headers.get("Inference-Header-Content-Length"))


# ---- answers ----


def test_the_server_tells_what_it_is(asked: Any) -> None:
    assert asked.get("/v2/health/live").json() == {"live": True}
    assert asked.get("/v2/health/ready").json() == {"ready": True}
    told = asked.get("/v2").json()
    assert told["name"] == "bertkit"
    assert "binary_tensor_data" in told["extensions"]
    index = asked.post("/v2/repository/index").json()
    assert [(one["name"], one["state"]) for one in index] == [
        (name, "READY") for run in ("pairs", "single", "span") for name in (run, f"{run}-text")
    ]


@pytest.mark.parametrize("version", ["", "/versions/1"])
def test_a_model_tells_what_it_is(asked: Any, version: str) -> None:
    told = asked.get(f"/v2/models/pairs{version}").json()
    assert told["versions"] == ["1"]
    assert [one["name"] for one in told["inputs"]] == ["input_ids", "attention_mask", "token_type_ids"]
    assert told["outputs"] == [{"name": "logits", "datatype": "FP32", "shape": [-1, 2]}]
    assert told["parameters"]["labels"] == ["0", "1"]
    texts = asked.get(f"/v2/models/pairs-text{version}").json()
    assert [(one["name"], one["datatype"]) for one in texts["inputs"]] == [("text", "BYTES"), ("text_pair", "BYTES")]
    assert [one["name"] for one in texts["outputs"]] == ["label", "score", "scores"]
    assert asked.get(f"/v2/models/pairs{version}/ready").json() == {"name": "pairs", "ready": True}


def test_plain_answers_are_the_predictors_own(asked: Any, runs: dict[str, Any]) -> None:
    own = runs["pairs"].predict([PAIR, ("good", "good")])
    wants = [
        {"label": one.label, "probability": one.scores[one.label], "scores": dict(one.scores)} for one in own
    ]  # fmt: skip
    one = asked.post("/predict", json={"model": "pairs", "text": PAIR[0], "text_pair": PAIR[1]})
    assert one.json() == wants[0]
    listed = {"model": "pairs-text", "text": [PAIR[0], "good"], "text_pair": [PAIR[1], "good"]}
    assert asked.post("/predict", json=listed).json() == wants
    pairs = {"model": "pairs", "text": [list(PAIR), ["good", "good"]]}
    assert asked.post("/predict", json=pairs).json() == wants
    assert asked.post("/predict", json={"model": "single", "text": "good"}).json()["label"] in ("0", "1")
    question = {"question": "good plot", "context": "bad film and good plot"}
    found = asked.post("/answer", json=question).json()
    answer = runs["span"].answer(**question)
    assert (found["answer"], found["start"], found["end"]) == (answer.text, answer.start, answer.end)
    assert (found["probability"], found["null_odds"]) == (answer.probability, answer.null_odds)
    both = {"question": ["good plot", "film"], "context": question["context"]}
    assert asked.post("/answer", json=both).json()[0] == found


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
def test_ids_give_the_engines_logits(asked: Any, runs: dict[str, Any], binary: bool, kind: type) -> None:
    ids = np.array([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]], kind)
    mask = (ids > 0).astype(kind)
    request = InferRequest(
        inputs=(tensor("input_ids", ids), tensor("attention_mask", mask), tensor("token_type_ids", mask * 0)),
        id="7",
        binary_outputs=binary,
    )
    found = infer(asked, "pairs", request, binary)
    assert (found.model, found.version, found.id) == ("pairs", "1", "7")
    features = runs["pairs"].sequences([ids[0, :4], ids[1, :3]], [ids[0, :4] * 0, ids[1, :3] * 0])
    (own,) = runs["pairs"].compute([features])
    assert np.array_equal(found.outputs[0].values, own["logits"])
    assert infer(asked, "span", request, binary).outputs[0].shape == (2, 5)


def test_logits_of_tokens_stand_where_the_tokens_do(asked: Any, runs: dict[str, Any]) -> None:
    ids = np.array([[2, 5, 6, 3, 0], [2, 7, 3, 0, 0]])
    request = InferRequest(
        inputs=(tensor("attention_mask", (ids > 0).astype(np.int64)), tensor("input_ids", ids)),
        outputs=(RequestedOutput(name="end_logits", binary=True), RequestedOutput(name="start_logits")),
    )
    found = infer(asked, "span", request, False)
    assert [one.name for one in found.outputs] == ["end_logits", "start_logits"]
    assert np.array_equal(found.outputs[0].values == -10_000, ids == 0)
    features = runs["span"].sequences([ids[0, :4], ids[1, :3]], [ids[0, :4] * 0, ids[1, :3] * 0])
    (own,) = runs["span"].compute([features])
    assert np.array_equal(found.outputs[1].values[ids > 0], own["start_logits"])


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_texts_give_labels_in_the_shape_of_the_texts(asked: Any, runs: dict[str, Any], shape: tuple[int, ...]) -> None:
    texts = [np.array([one, "good"], object).reshape(shape) for one in PAIR]
    request = InferRequest(inputs=(tensor("text", texts[0]), tensor("text_pair", texts[1])), binary_outputs=True)
    found = {one.name: one for one in infer(asked, "pairs-text", request, True).outputs}
    own = runs["pairs"].predict([PAIR, ("good", "good")])
    assert found["label"].shape == found["score"].shape == shape
    assert found["label"].texts() == [one.label for one in own]
    assert found["scores"].values == pytest.approx(np.array([[*one.scores.values()] for one in own]))
    question = InferRequest(inputs=(tensor("question", ["film"]), tensor("context", ["bad film"])))
    answers = {one.name: one for one in infer(asked, "span-text", question, True).outputs}
    assert answers["answer"].texts() == [runs["span"].answer("film", "bad film").text]


def test_counts_reach_statistics_and_metrics(runs: dict[str, Any]) -> None:
    with client({"single": runs["single"]}) as asked:
        for _ in range(3):
            asked.post("/predict", json={"text": ["good", "bad"]})
        asked.post("/predict", json={"text": 7})
        (told,) = asked.get("/v2/models/single/stats").json()["model_stats"]
        text = asked.get("/metrics").text
    assert (told["name"], told["inference_count"], told["execution_count"]) == ("single", 6, 3)
    assert told["inference_stats"]["success"]["count"] == 3
    assert told["inference_stats"]["fail"]["count"] == 1
    assert told["inference_stats"]["compute_infer"]["ns"] > 0
    assert told["last_inference"] > 0
    assert 'bertkit_requests_total{model="single",outcome="success"} 3.0' in text
    assert 'bertkit_batch_tokens_count{model="single"} 3.0' in text
    assert 'bertkit_request_seconds_bucket{le="60.0",model="single"} 3.0' in text


def test_the_page_needs_nothing_from_elsewhere(asked: Any) -> None:
    found = asked.get("/")
    assert found.status_code == 200
    assert found.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "http" not in found.text.replace("http-equiv", "")


# ---- faults ----

IDS = {"name": "input_ids", "shape": [1, 3], "datatype": "INT64", "data": [2, 5, 3]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "cause"),
    [
        ("GET", "/nowhere", None, 404, "Not Found"),
        ("DELETE", "/predict", None, 405, "Method Not Allowed"),
        ("GET", "/v2/models/other", None, 404, "there is no model 'other'"),
        ("GET", "/v2/models/other-text", None, 404, "there is no model 'other-text'"),
        ("GET", "/v2/models/pairs/versions/2", None, 404, "pairs has no version '2'"),
        ("POST", "/v2/models/other/infer", "{", 404, "there is no model 'other'"),
        ("POST", "/v2/repository/models/other/load", None, 404, "there is no model"),
        ("POST", "/v2/repository/models/pairs/unload", None, 400, "not unloaded"),
        ("POST", "/predict", "{", 400, "not JSON"),
        ("POST", "/predict", "[1]", 400, "not a JSON object"),
        ("POST", "/predict", {"text": "a"}, 400, "2 models can be meant"),
        ("POST", "/predict", {"model": 7, "text": "a"}, 400, "'model' is not a text"),
        ("POST", "/predict", {"model": "other", "text": "a"}, 404, "there is no model"),
        ("POST", "/predict", {"model": "span", "question": "a", "context": "b"}, 400, "span is not asked here"),
        ("POST", "/answer", {"model": "single", "text": "a"}, 400, "single is not asked here"),
        ("POST", "/predict", {"model": "single"}, 400, "'text' is missing"),
        ("POST", "/predict", {"model": "single", "txt": "a"}, 400, "there is no 'txt'"),
        ("POST", "/predict", {"model": "single", "text": "a", "text_pair": "b"}, 400, "sample takes no text_pair"),
        ("POST", "/predict", {"model": "single", "text": 7}, 400, "'text' is not a text"),
        ("POST", "/predict", {"model": "single", "text": []}, 400, "empty list"),
        ("POST", "/predict", {"model": "single", "text": ["a", None]}, 400, "'text' of example 1 is not a text"),
        ("POST", "/predict", {"model": "pairs", "text": "a"}, 400, "'text_pair' is not a text"),
        ("POST", "/predict", {"model": "pairs", "text": [["a"]]}, 400, "1 texts of example 0, not 2"),
        ("POST", "/predict", {"model": "pairs", "text": ["a"], "text_pair": ["b", "c"]}, 400, "not a list of 1"),
        ("POST", "/answer", {"question": " ", "context": "b"}, 400, "is empty"),
        ("POST", "/answer", {"question": "good " * 70, "context": "b"}, 400, "leaves no room"),
        ("POST", "/v2/models/pairs/infer", {}, 400, "inputs is not a list"),
        ("POST", "/v2/models/pairs/infer", {"inputs": []}, 400, "the input 'input_ids' is missing"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"name": "x"}]}, 400, "no input 'x'"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"datatype": "FP32"}]}, 400, "'input_ids' is FP32"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"shape": [3]}]}, 400, "has the shape [3]"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"shape": [3, 0], "data": []}]}, 400, "holds no token"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"shape": [0, 3], "data": []}]}, 400, "holds no token"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"shape": [1, 65], "data": [1] * 65}]}, 400, "65 tokens"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"data": [2, -5, 3]}]}, 400, "none of the model's"),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS | {"data": [2, 10**9, 3]}]}, 400, "none of the model's"),
        (
            "POST", "/v2/models/pairs/infer",
            {"inputs": [IDS, IDS | {"name": "token_type_ids", "data": [0, 2, 0]}]}, 400,
            "token_type_ids holds a number",
        ),
        (
            "POST", "/v2/models/pairs/infer",
            {"inputs": [IDS, IDS | {"name": "attention_mask", "data": [0, 1, 1]}]}, 400,
            "'attention_mask' is not ones followed by zeros",
        ),
        (
            "POST", "/v2/models/pairs/infer",
            {"inputs": [IDS, IDS | {"name": "attention_mask", "shape": [3, 1], "data": [1, 1, 1]}]}, 400,
            "'attention_mask' has the shape [3, 1]",
        ),
        ("POST", "/v2/models/pairs/infer", {"inputs": [IDS], "outputs": [{"name": "x"}]}, 400, "no output 'x'"),
        (
            "POST", "/v2/models/pairs/infer",
            {"inputs": [IDS], "outputs": [{"name": "logits", "parameters": {"classification": 2}}]}, 400,
            "no extension 'classification'",
        ),
        (
            "POST", "/v2/models/pairs-text/infer",
            {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["a"]}]}, 400,
            "'text_pair' is missing",
        ),
        (
            "POST", "/v2/models/single-text/infer",
            {"inputs": [{"name": "text", "shape": [1, 2], "datatype": "BYTES", "data": ["a", "b"]}]}, 400,
            "'text' has the shape [1, 2]",
        ),
        (
            "POST", "/v2/models/single-text/infer",
            {"inputs": [{"name": "text", "shape": [1], "datatype": "INT32", "data": [1]}]}, 400, "'text' is INT32",
        ),
    ],
)  # fmt: skip
def test_a_fault_has_its_status(asked: Any, method: str, path: str, body: Any, status: int, cause: str) -> None:
    content = body if isinstance(body, str | None) else json.dumps(body)
    found = asked.request(method, path, content=content)
    assert cause in error_of(found, status)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["pairs", "good", "INT64"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "data", "x"]), inner),
    max_leaves=6,
)
KEYS = st.sampled_from("text text_pair choices question context model".split())
PARTS = st.fixed_dictionaries(
    {}, optional={key: ANY | st.just(value) for key, value in (IDS | {"parameters": {"binary_data_size": 0}}).items()}
)


@given(st.dictionaries(KEYS, ANY, max_size=4), st.lists(PARTS, max_size=3))
@settings(max_examples=60)
def test_no_json_is_a_fault_of_the_server(asked: Any, plain: dict[str, Any], inputs: list[Any]) -> None:
    for path in ("/predict", "/answer"):
        assert asked.post(path, content=json.dumps(plain)).status_code in (200, 400, 404)
    for model in ("pairs", "pairs-text", "span", "span-text"):
        found = asked.post(f"/v2/models/{model}/infer", content=json.dumps({"inputs": inputs}))
        assert found.status_code in (200, 400)


def test_text_that_is_not_utf_8_is_refused(asked: Any) -> None:
    request = InferRequest(inputs=(tensor("text", [b"\xff"]),))
    body = encode_request(request)
    found = asked.post("/v2/models/single-text/infer", content=body.content, headers=body.headers)
    assert "'text' holds bytes that are not UTF-8" in error_of(found, 400)


def test_a_compressed_request_is_refused(asked: Any) -> None:
    found = asked.post("/predict", content=b"x", headers={"Content-Encoding": "gzip"})
    assert "compressed" in error_of(found, 415)


def test_a_large_body_is_refused(runs: dict[str, Any]) -> None:
    with client({"single": runs["single"]}, body_bytes=1000) as asked:
        assert asked.post("/predict", json={"text": "good " * 100}).status_code == 200
        assert "over 1,000 bytes" in error_of(asked.post("/predict", json={"text": "good " * 200}), 413)
        pieces = (b"x" * 100 for _ in range(20))  # without a Content-Length
        assert "over 1,000 bytes" in error_of(asked.post("/predict", content=pieces), 413)


def test_bodies_do_not_fill_the_memory(runs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with client({"single": runs["single"]}, body_bytes=1000) as asked:
        import bertkit_serve.app

        monkeypatch.setattr(bertkit_serve.app, "MOST_HELD", 0.5)
        for _ in range(3):  # what was held is given back
            assert "too much is being sent" in error_of(asked.post("/predict", json={"text": "good " * 120}), 429)
            assert asked.post("/predict", json={"text": "good " * 20}).status_code == 200


def test_a_model_that_the_caller_loaded_cannot_be_loaded_anew(runs: dict[str, Any]) -> None:
    with client({"single": runs["single"]}) as asked:
        assert "has no folder" in error_of(asked.post("/v2/repository/models/single/load"), 400)
        assert asked.post("/predict", json={"text": "good"}).status_code == 200


def test_too_many_tokens_are_refused(runs: dict[str, Any]) -> None:
    with client({"single": runs["single"]}, request_tokens=10, queue=3) as asked:
        assert asked.post("/predict", json={"text": ["good"] * 3}).status_code == 200
        assert "12 tokens" in error_of(asked.post("/predict", json={"text": ["good"] * 4}), 413)
        assert "in 4 sequences" in error_of(asked.post("/predict", json={"text": [""] * 4}), 413)


def test_a_fault_of_the_engine_is_told_without_the_text(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = stand_in(tmp_path, "sample")
    with client({"single": run}) as asked:
        engine_of(run).fails = True
        message = error_of(asked.post("/predict", json={"text": "good"}), 500)
        engine_of(run).fails = False
        assert asked.post("/predict", json={"text": "good"}).status_code == 200
    assert "RuntimeError" in message
    assert "SECRET" not in message + caplog.text


def test_logits_that_are_not_finite_spoil_no_other_request(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    wants = dict(run.predict("bad").scores)
    engine.nan = int(run.prepare([("film",)]).features.input_ids[1])
    with client({"single": run}) as asked:
        engine.batches.clear()
        engine.go.clear()
        found: dict[str, Any] = {}

        def ask(text: str) -> None:
            found[text] = asked.post("/predict", json={"text": text})

        threads = [threading.Thread(target=ask, args=(text,)) for text in ("good", "film", "bad")]
        threads[0].start()
        wait_until(lambda: engine.batches)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: asked.app.state.service.models["single"].batcher.sequences == 2)
        engine.go.set()
        for thread in threads:
            thread.join()
    assert [len(batch) for batch in engine.batches] == [1, 2]
    assert "not finite" in error_of(found["film"], 500)
    assert found["bad"].json()["scores"] == wants


# ---- key, number, log ----


def test_the_key_is_asked_for(runs: dict[str, Any]) -> None:
    with client({"single": runs["single"]}, key="s3cret") as asked:
        for path in ("/", "/v2/health/live", "/v2/health/ready"):
            assert asked.get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            for method, path in (("POST", "/predict"), ("GET", "/metrics"), ("GET", "/v2/models/single")):
                found = asked.request(method, path, headers=headers)
                assert "API key" in error_of(found, 401)
                assert found.headers["www-authenticate"] == "Bearer"
        right = {"Authorization": "bearer s3cret"}
        assert asked.post("/predict", json={"text": "good"}, headers=right).status_code == 200


def test_each_request_has_a_number(asked: Any) -> None:
    assert asked.get("/v2", headers={"X-Request-Id": "abc-1"}).headers["x-request-id"] == "abc-1"
    made = [asked.get("/v2", headers=headers).headers["x-request-id"] for headers in ({}, {"X-Request-Id": "a b"})]
    assert made[0] != made[1]
    assert all(len(one) == 32 for one in made)
    assert asked.get("/nowhere", headers={"X-Request-Id": "abc-2"}).headers["x-request-id"] == "abc-2"


@pytest.mark.parametrize("wanted", [False, True])
def test_texts_are_logged_only_where_asked_for(
    runs: dict[str, Any], caplog: pytest.LogCaptureFixture, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    monkeypatch.setattr(logging.getLogger("bertkit.serve"), "propagate", True)
    with client({"single": runs["single"]}, log_texts=wanted) as asked, caplog.at_level("INFO", "bertkit.serve"):
        asked.post("/predict", json={"text": "good plot"}, headers={"X-Request-Id": "n-1"})
        asked.post("/predict", json={"text": ["good plot", 5]})
    lines = [record.getMessage() for record in caplog.records if "POST" in record.getMessage()]
    assert "POST /predict 200" in lines[0]
    assert "tokens 4" in lines[0]
    assert "id n-1" in lines[0]
    assert ("good plot" in lines[0]) == wanted
    assert "good plot" not in lines[1]


# ---- the beginning and the end ----


def test_a_draining_server_refuses_and_says_that_it_is_not_ready(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    with client({"single": run}) as asked:
        asked.app.state.service.draining = True
        assert asked.get("/v2/health/ready").status_code == 503
        assert asked.get("/v2/health/live").status_code == 200
        found = asked.post("/predict", json={"text": "good"})
        assert "the server is ending" in error_of(found, 503)
    wait_until(lambda: engine_of(run).closed)


def test_a_run_that_cannot_be_loaded_is_never_ready(tmp_path: Path) -> None:
    testing = pytest.importorskip("starlette.testclient", reason="starlette or httpx is not installed")
    import bertkit_serve

    with testing.TestClient(bertkit_serve.make_app({"a": tmp_path / "none"})) as asked:
        service = asked.app.state.service
        wait_until(lambda: service.failure)
        assert "none" in str(service.failure)
        assert asked.get("/v2/health/ready").status_code == 503
        assert "being loaded" in error_of(asked.get("/v2/models/a"), 503)
