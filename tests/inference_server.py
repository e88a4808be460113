"""A small server of the Open Inference Protocol in this process, with whatever models a test gives it.

It is written with the core's protocol module, answers JSON or raw tensors as it was asked, and counts what came.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from bertkit.engine.inference_protocol import (
    InferResponse,
    decode_request,
    encode_response,
    error_body,
    to_bytes,
)
from bertkit.engine.protocol_tensors import tensor
from bertkit.errors import UserError
from in_thread import in_thread

Compute = Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]
Spec = tuple[str, str, list[int]]  # name, datatype, shape
BERT: tuple[Spec, ...] = (
    ("input_ids", "INT64", [-1, -1]), ("attention_mask", "INT64", [-1, -1]), ("token_type_ids", "INT64", [-1, -1]),
)  # fmt: skip
SPANS: tuple[Spec, ...] = (("start_logits", "FP32", [-1, -1]), ("end_logits", "FP32", [-1, -1]))


@dataclass(frozen=True)
class StandInModel:
    """A model: its tensors, and what makes outputs of inputs (BYTES as lists of texts in an object array)."""

    inputs: tuple[Spec, ...]
    outputs: tuple[Spec, ...]
    compute: Compute


@dataclass
class Counts:
    """What came in."""

    requests: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    sequences: int = 0
    shapes: list[tuple[int, ...]] = field(default_factory=list)
    binary: int = 0


class InferenceServer(ThreadingHTTPServer):
    """`models`: name -> model. `busy`: requests that are refused with 429 first; `delay`: seconds of computing."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, models: Mapping[str, StandInModel]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.models = dict(models)
        self.busy = 0
        self.fail_every = 0  # every so many requests get a 500
        self.delay = 0.0
        self.ready = True
        self.lists = True
        self.extensions = ["binary_tensor_data", "statistics"]
        self.facts: dict[str, Any] = {}  # "parameters" of the models' metadata
        self.counts = Counts()
        self.spent = {"queue": 0, "compute_infer": 0}  # nanoseconds
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def inference_server(**models: StandInModel) -> AbstractContextManager[InferenceServer]:
    return in_thread(InferenceServer(models))


class Handler(BaseHTTPRequestHandler):
    server: InferenceServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = self.path.strip("/").split("/")
        if parts == ["v2"]:
            self._json({"name": "stand-in", "version": "1", "extensions": self.server.extensions})
        elif parts == ["v2", "health", "ready"]:
            self._send(200 if self.server.ready else 503, b"")
        elif parts[:2] == ["v2", "models"] and (model := self.server.models.get(parts[2])):
            if parts[-1] == "stats":
                self._json({"model_stats": [self._stats(parts[2])]})
                return
            keys = ("name", "datatype", "shape")
            told = {
                key: [dict(zip(keys, one, strict=True)) for one in getattr(model, key)] for key in ("inputs", "outputs")
            }
            self._json({"name": parts[2], "platform": "stand-in", "parameters": self.server.facts, **told})
        else:
            self._send(404, error_body(f"unknown: {self.path}"))

    def _stats(self, name: str) -> dict[str, Any]:
        count = self.server.counts.requests
        inside = {key: {"count": count, "ns": ns} for key, ns in self.server.spent.items()}
        return {
            "name": name, "version": "1", "inference_count": self.server.counts.sequences, "execution_count": count,
            "inference_stats": {"success": {"count": count, "ns": sum(self.server.spent.values())}, **inside},
        }  # fmt: skip

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = self.path.strip("/").split("/")
        if parts == ["v2", "repository", "index"] and self.server.lists:
            self._json([{"name": name, "version": "1", "state": "READY"} for name in self.server.models])
        elif parts[:2] == ["v2", "models"] and parts[-1] == "infer" and parts[2] in self.server.models:
            self._infer(self.server.models[parts[2]], parts[2], content)
        else:
            self._send(404, error_body(f"unknown: {self.path}"))

    def _infer(self, model: StandInModel, name: str, content: bytes) -> None:
        server, counts = self.server, self.server.counts
        with server.lock:
            counts.requests += 1
            counts.in_flight += 1
            counts.most_in_flight = max(counts.most_in_flight, counts.in_flight)
            number, refuse = counts.requests, server.busy > 0
            server.busy -= refuse
        try:
            if refuse:
                self._send(429, error_body("the queue is full"), {"Retry-After": "0"})
            elif server.fail_every and number % server.fail_every == 0:
                self._send(500, error_body("it failed"))
            else:
                self._answer(model, name, content)
        finally:
            with server.lock:
                counts.in_flight -= 1

    def _answer(self, model: StandInModel, name: str, content: bytes) -> None:
        length = self.headers.get("Inference-Header-Content-Length")
        start = time.perf_counter_ns()
        try:
            asked = decode_request(content, length)
            outputs = model.compute({one.name: one.values for one in asked.inputs})
        except UserError as error:
            self._send(400, error_body(str(error)))
            return
        time.sleep(self.server.delay)
        with self.server.lock:
            self.server.counts.sequences += len(asked.inputs[0].values)
            self.server.counts.shapes.append(asked.inputs[0].shape)
            self.server.counts.binary += length is not None
            self.server.spent["compute_infer"] += time.perf_counter_ns() - start
            self.server.spent["queue"] += 1_000_000
        made = InferResponse(name, tuple(tensor(key, values) for key, values in outputs.items()), id=asked.id)
        body = encode_response(made, [key for key in outputs if asked.wants_binary(key)])
        self._send(200, body.content, body.headers)

    def _json(self, value: Any) -> None:
        self._send(200, to_bytes(value), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content)


# ---- models without a framework ----


def token_scores(ids: np.ndarray, types: np.ndarray, salt: int) -> np.ndarray:
    """A number for each token, which follows from it and its place alone."""
    places = np.arange(ids.shape[-1])
    mixed = (ids.astype(np.int64) * 2654435761 + places * 40503 + types * 97 + salt * 7919) % 1009
    scores: np.ndarray = (mixed / 100.0).astype(np.float32)
    return scores


def spans(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """start and end logits (B, S), noise at padding."""
    ids, types, mask = (inputs[name] for name in ("input_ids", "token_type_ids", "attention_mask"))
    made = {name: token_scores(ids, types, salt) for salt, name in enumerate(("start_logits", "end_logits"))}
    return {name: np.where(mask > 0, scores, 99.0).astype(np.float32) for name, scores in made.items()}


def classes(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """logits (B, 2)."""
    scores = token_scores(inputs["input_ids"], inputs["token_type_ids"], 3) * (inputs["attention_mask"] > 0)
    return {"logits": np.stack([scores.sum(1), scores.max(1) * 20], 1).astype(np.float32)}


def text_labels(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    texts = [one.decode() for one in inputs["text"].reshape(-1)]
    labels = np.array(["long" if len(text) > 10 else "short" for text in texts], object)
    return {"label": labels, "score": np.array([len(text) / 100 for text in texts], np.float32)}


def text_answers(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    contexts = [one.decode() for one in inputs["context"].reshape(-1)]
    answers = [context.split()[-1] for context in contexts]
    return {
        "answer": np.array(answers, object), "score": np.ones(len(answers), np.float32),
        "start": np.zeros(len(answers), np.int64), "end": np.ones(len(answers), np.int64),
    }  # fmt: skip


QA = StandInModel(BERT, SPANS, spans)
CLASSIFIER = StandInModel(BERT, (("logits", "FP32", [-1, 2]),), classes)
TEXTS = StandInModel((("text", "BYTES", [-1]),), (("label", "BYTES", [-1]), ("score", "FP32", [-1])), text_labels)
QA_TEXTS = StandInModel(
    (("question", "BYTES", [-1]), ("context", "BYTES", [-1])),
    (("answer", "BYTES", [-1]), ("score", "FP32", [-1]), ("start", "INT64", [-1]), ("end", "INT64", [-1])),
    text_answers,
)  # fmt: skip


def nvidia(model: StandInModel, length: int = 0) -> StandInModel:
    """The same with the tensors of NVIDIA's PyTorch example, INT32, padded to `length` where it is given."""
    names = ("input__0", "input__1", "input__2")
    ours = ("input_ids", "token_type_ids", "attention_mask")

    def compute(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert {values.dtype for values in inputs.values()} == {np.dtype(np.int32)}
        made = model.compute({own: inputs[name] for own, name in zip(ours, names, strict=True)})
        return {f"output__{number}": values for number, values in enumerate(made.values())}

    return StandInModel(
        tuple((name, "INT32", [-1, length or -1]) for name in names),
        tuple((f"output__{number}", one[1], one[2]) for number, one in enumerate(model.outputs)),
        compute,
    )


def told(out: str) -> Any:
    """JSON that a command printed."""
    return json.loads(out)
