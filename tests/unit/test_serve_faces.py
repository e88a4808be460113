"""Models of every kind of head over the protocol and in plain JSON: numbers, several labels, choices, tags."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.data.tasks import find_task
from bertkit.engine.inference_protocol import InferRequest, decode_response, encode_request
from bertkit.engine.protocol_tensors import tensor
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.plugin import ServeOptions
from served import client, stand_in


def answers(asked: Any, model: str, **inputs: Any) -> dict[str, Any]:
    """The outputs by name, as lists."""
    request = InferRequest(inputs=tuple(tensor(name, values) for name, values in inputs.items()), binary_outputs=True)
    body = encode_request(request)
    found = asked.post(f"/v2/models/{model}/infer", content=body.content, headers=body.headers)
    assert found.status_code == 200, found.text
    told = decode_response(found.content, found.headers["Inference-Header-Content-Length"])
    specs = {one["name"]: one for one in asked.get(f"/v2/models/{model}").json()["outputs"]}
    for one in told.outputs:
        assert one.datatype == specs[one.name]["datatype"]
        shape = specs[one.name]["shape"]
        assert len(shape) == len(one.shape)
        assert all(size in (-1, real) for size, real in zip(shape, one.shape, strict=True))
    return {one.name: one.texts() if one.datatype == "BYTES" else one.values.tolist() for one in told.outputs}


def test_numbers(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "stsb")
    own = run.predict([("good", "bad"), ("plot", "film")])
    with client({"a": run}) as asked:
        told = {"text": ["good", "plot"], "text_pair": ["bad", "film"]}
        assert asked.post("/predict", json=told).json() == [{"value": one.value} for one in own]
        assert answers(asked, "a-text", **told)["value"] == pytest.approx([one.value for one in own])
        assert np.shape(answers(asked, "a", input_ids=np.array([[2, 5, 3]]))["logits"]) == (1, 1)


def test_several_labels(tmp_path: Path) -> None:
    task = dataclasses.replace(find_task("sample"), head=Head("multilabel", 3), labels=("a", "b", "c"))
    run = stand_in(tmp_path, task)
    (own,) = run.predict(["good plot"])
    assert 0 < len(own.labels) < 3
    with client({"a": run}) as asked:
        found = asked.post("/predict", json={"text": "good plot"}).json()
        assert found["labels"] == list(own.labels)
        assert found["scores"] == dict(own.scores)
        texts = answers(asked, "a-text", text=["good plot"])
        assert json.loads(texts["labels"][0]) == list(own.labels)
        assert texts["scores"][0] == pytest.approx(list(own.scores.values()))


def test_choices(tmp_path: Path) -> None:
    task = dataclasses.replace(find_task("sample"), head=Head("choice", 3), labels=())
    run = stand_in(tmp_path, task)
    choices = [["good", "bad", "plot"], ["film", "a", "good film"]]
    own = list(run.predict_texts([("plot", *choices[0]), ("film", *choices[1])]))
    with client({"a": run}) as asked:
        found = asked.post("/predict", json={"text": ["plot", "film"], "choices": choices}).json()
        assert [(one["choice"], one["label"]) for one in found] == [(one.choice, one.label) for one in own]
        assert asked.post("/predict", json={"text": "plot", "choices": choices[0]}).json() == found[0]
        texts = answers(asked, "a-text", text=["plot", "film"], choices=choices)
        assert texts["choice"] == [one.choice for one in own]
        assert texts["label"] == [one.label for one in own]
        ids = np.array([[[2, 5, 3], [2, 6, 3], [2, 7, 0]]])
        assert np.shape(answers(asked, "a", input_ids=ids, attention_mask=(ids > 0) * 1)["logits"]) == (1, 3)
        for few in (["good", "bad"], "good", []):
            refused = asked.post("/predict", json={"text": "plot", "choices": few})
            assert refused.status_code == 400
            assert "the model chooses of 3" in refused.json()["error"]
        refused = asked.post("/v2/models/a/infer", content=encode_request(
            InferRequest(inputs=(tensor("input_ids", ids[:, :2]),))).content)  # fmt: skip
        assert refused.status_code == 400


def test_tags(tmp_path: Path) -> None:
    task = dataclasses.replace(find_task("sample"), head=Head("tokens", 3), labels=("O", "B-x", "I-x"))
    run = stand_in(tmp_path, task)
    text = "good plot and bad film"
    (own,) = run.predict([text])
    with client({"a": run}) as asked:
        found = asked.post("/predict", json={"text": text}).json()
        assert found["entities"] == [dataclasses.asdict(span) for span in own.spans]
        assert json.loads(answers(asked, "a-text", text=[text])["entities"][0]) == found["entities"]
        ids = np.array([[2, 5, 3, 0]])
        logits = answers(asked, "a", input_ids=ids, attention_mask=(ids > 0) * 1)["logits"]
        assert np.shape(logits) == (1, 4, 3)
        assert logits[0][3] == [0, 0, 0]


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import bertkit_serve

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"uvicorn is not installed; pip install 'bertkit\[serve\]'"):
        bertkit_serve.HttpServer().serve(ServeOptions(runs={"a": "b"}))
