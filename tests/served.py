"""Models that tests serve: a stand-in engine whose logits follow from the tokens, slow where a test says so."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.data.tasks import find_task
from bertkit.data.tasks.sample import vocabulary
from bertkit.data.tasks.task import Task
from bertkit.model.config import PER_TOKEN
from bertkit.model.loading import find_source
from bertkit.recipes.recipe import Recipe
from bertkit.recipes.resolve import resolve
from bertkit.training.inference import Loaded
from bertkit.training.predictor import Predictor


class StandIn:
    """Logits by a sequence's tokens, whatever stands beside it in the batch."""

    def __init__(self, kind: str, outputs: int) -> None:
        self.kind, self.outputs = kind, outputs
        self.batches: list[list[int]] = []  # the lengths of each
        self.go = threading.Event()  # cleared: batches wait
        self.go.set()
        self.seconds = 0.0
        self.fails = False
        self.nan = -1  # a token id that makes a sequence's logits not finite
        self.closed = False

    def predict(self, batch: Any) -> dict[str, np.ndarray]:
        self.batches.append(np.diff(batch["cu_seqlens"]).tolist())
        assert self.go.wait(20)
        time.sleep(self.seconds)
        if self.fails:
            raise RuntimeError(f"the {'secret':s} text of a user".upper())
        ids = np.where(batch["input_ids"] == self.nan, np.nan, batch["input_ids"]).astype(np.float32)
        tokens = ids[:, None] / 100 + np.arange(self.outputs, dtype=np.float32)
        if self.kind == "span":
            return {"start_logits": tokens[:, 0], "end_logits": tokens[:, 1]}
        if self.kind in PER_TOKEN:
            return {"logits": np.sin(tokens)}
        bounds = batch["cu_seqlens"]
        rows = [tokens[a:b].sum(0) for a, b in itertools.pairwise(bounds)]
        return {"logits": np.sin(np.array(rows, np.float32).reshape(len(rows), -1))}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows

    def close(self) -> None:
        self.closed = True


def stand_in(folder: Path, task: str | Task, seq_length: int = 64) -> Predictor:
    """A Predictor for `task` with the sample's words, on a stand-in engine."""
    words = folder / "vocab.txt"
    words.write_text("\n".join(vocabulary()) + "\n")
    found = find_task(task) if isinstance(task, str) else task
    engine: Any = StandIn(found.head.kind, found.head.logits_each)
    recipe: Recipe = resolve({"task": "sample", "data.seq_length": seq_length}).recipe
    return Predictor(Loaded(found, find_source("tiny", str(words)), engine, "fp32", "stand-in"), recipe)


def engine_of(predictor: Predictor) -> StandIn:
    engine: Any = predictor.loaded.engine
    return engine


@contextlib.contextmanager
def client(
    runs: dict[str, Predictor], key: str = "", headers: dict[str, str] | None = None, **options: Any
) -> Iterator[Any]:
    """A client of an application in this process, ready to be asked."""
    testing = pytest.importorskip("starlette.testclient", reason="starlette or httpx is not installed")
    pytest.importorskip("prometheus_client", reason="prometheus-client is not installed")
    import bertkit_serve
    from bertkit.plugin import ServeOptions

    app = bertkit_serve.make_app(runs, api_key=key, options=ServeOptions(runs={}, **options))
    with testing.TestClient(app, raise_server_exceptions=False, headers=headers) as found:
        wait_until(lambda: found.get("/v2/health/ready").status_code == 200)
        yield found


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def error_of(found: Any, status: int) -> str:
    assert found.status_code == status, found.text
    told = found.json()
    assert list(told) == ["error"]
    return str(told["error"])
