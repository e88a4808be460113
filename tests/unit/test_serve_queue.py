"""A served model's queue, asked in this process: what is computed together, what waits, what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from served import client, engine_of, error_of, stand_in, wait_until


def test_what_comes_while_the_engine_computes_is_one_batch(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    with client({"single": run}) as asked:
        engine.batches.clear()
        engine.go.clear()
        texts = ["good", *["good " * count for count in range(1, 9)]]
        found: dict[str, Any] = {}

        def ask(text: str) -> None:
            found[text] = asked.post("/predict", json={"text": text}).json()

        threads = [threading.Thread(target=ask, args=(text,)) for text in texts]
        threads[0].start()
        wait_until(lambda: engine.batches)
        for thread in threads[1:]:
            thread.start()
        batcher = asked.app.state.service.models["single"].batcher
        wait_until(lambda: batcher.sequences == 8)
        assert batcher.tokens == sum(range(1, 9)) + 16
        engine.go.set()
        for thread in threads:
            thread.join()
        assert [len(batch) for batch in engine.batches] == [1, 8]
    for text in texts:
        assert found[text]["scores"] == dict(run.predict(text).scores)


def test_what_fits_goes_along_while_a_longer_one_waits_for_the_next_batch(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    lengths = [10, 25, 5, 8, 3, 4, 20]  # tokens, in the order of their coming; a batch has 20, and 2 are left out
    with client({"single": run}, batch_tokens=20) as asked:
        engine.batches.clear()
        engine.go.clear()
        batcher = asked.app.state.service.models["single"].batcher
        texts = ["good", *["good " * (length - 2) for length in lengths]]
        threads = [threading.Thread(target=asked.post, args=("/predict",), kwargs={"json": {"text": t}}) for t in texts]
        threads[0].start()
        wait_until(lambda: engine.batches)
        for number, thread in enumerate(threads[1:], 1):
            thread.start()
            wait_until(lambda number=number: batcher.sequences == number)
        engine.go.set()
        for thread in threads:
            thread.join()
        assert [sorted(batch) for batch in engine.batches] == [[3], [3, 5, 10], [25], [4, 8], [20]]
        assert (batcher.tokens, batcher.sequences) == (0, 0)


def test_a_full_queue_says_when_to_come_back(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    with client({"single": run}, queue=2) as asked:
        engine.batches.clear()
        engine.go.clear()
        threads = [
            threading.Thread(target=asked.post, args=("/predict",), kwargs={"json": {"text": "good"}}) for _ in range(3)
        ]
        threads[0].start()
        wait_until(lambda: engine.batches)
        for thread in threads[1:]:
            thread.start()
        batcher = asked.app.state.service.models["single"].batcher
        wait_until(lambda: batcher.sequences == 2)
        found = asked.post("/predict", json={"text": "good"})
        assert "the queue is full" in error_of(found, 429)
        assert 1 <= int(found.headers["retry-after"]) <= 60
        assert "bertkit_queue_sequences" in asked.get("/metrics").text  # others are answered meanwhile
        engine.go.set()
        for thread in threads:
            thread.join()
        assert 'outcome="rejected"} 1.0' in asked.get("/metrics").text


def test_a_request_that_takes_too_long_leaves_the_queue(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    with client({"single": run}, timeout=0.2) as asked:
        engine.batches.clear()
        engine.go.clear()
        assert "not answered within 0.2 s" in error_of(asked.post("/predict", json={"text": "good"}), 504)
        assert "not answered within 0.2 s" in error_of(asked.post("/predict", json={"text": "good plot"}), 504)
        assert asked.app.state.service.models["single"].batcher.sequences == 0
        engine.go.set()
        assert asked.post("/predict", json={"text": "bad"}).status_code == 200
        assert engine.batches == [[3], [3]]  # "good plot" was never computed


def test_a_large_request_is_divided_and_put_together(tmp_path: Path) -> None:
    run = stand_in(tmp_path, "sample")
    engine = engine_of(run)
    texts = ["good " * (1 + number % 7) for number in range(40)]
    with client({"single": run}, batch_tokens=20) as asked:
        engine.batches.clear()
        found = asked.post("/predict", json={"text": texts}).json()
        assert len(engine.batches) > 8
        assert max(sum(batch) for batch in engine.batches) <= 20
    assert [one["scores"] for one in found] == [dict(one.scores) for one in run.predict(texts)]


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.0, 4096, 4096), (0.02, 513, 1280), (0.2, 512, 512)])
def test_a_batch_is_as_large_as_takes_50_ms(
    seconds: float, least: int, most: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = stand_in(tmp_path, "sample")
    engine_of(run).seconds = seconds  # of any batch; 512 tokens are tried
    with caplog.at_level("INFO"), client({"single": run}) as asked:
        tokens = asked.app.state.service.models["single"].batcher.limits.tokens
    assert least <= tokens <= most
    assert f"single: batches of up to {tokens:,} tokens" in caplog.text
