"""What is counted, for /metrics in Prometheus' text form and for Triton's statistics.

With several processes prometheus-client keeps the values in files of a folder that they share
(PROMETHEUS_MULTIPROC_DIR, set before it is imported), and whichever process is asked adds them up.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from bertkit_serve.batching import Computed
from bertkit_serve.models import VERSION

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
SIZES = tuple(float(1 << power) for power in range(17))
OUTCOMES = ("success", "refused", "rejected", "timeout", "cancelled", "error")
STAGES = ("queue", "compute")


class Metrics:
    """Of one process; a model's are made when it is first asked for."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("bertkit_requests", "Requests by outcome.", ["model", "outcome"], **own)
        self.examples = Counter("bertkit_examples", "Examples that were answered.", ["model"], **own)
        self.latency = Histogram(
            "bertkit_request_seconds", "Time of answered requests.", ["model"], buckets=SECONDS, **own
        )
        self.stages = Histogram(
            "bertkit_stage_seconds", "Time of answered requests, by stage.", ["model", "stage"], buckets=SECONDS, **own
        )
        self.batch_tokens = Histogram("bertkit_batch_tokens", "Tokens of a batch.", ["model"], buckets=SIZES, **own)
        self.batch_sequences = Histogram(
            "bertkit_batch_sequences", "Sequences of a batch.", ["model"], buckets=SIZES[:11], **own
        )
        self.batch_seconds = Histogram(
            "bertkit_batch_seconds", "Computing time of a batch.", ["model"], buckets=SECONDS, **own
        )
        self.info = Gauge(
            "bertkit_model_info",
            "The engine and precision of a loaded model; always 1.",
            ["model", "engine", "precision"],
            multiprocess_mode="livemax",
            **own,
        )
        self.waiting = Gauge(
            "bertkit_queue_sequences", "Sequences that wait.", ["model"], multiprocess_mode="livesum", **own
        )
        self.reloads = Counter(
            "bertkit_reloads", "Runs that were loaded anew, by outcome.", ["model", "outcome"], **own
        )

    def know(self, model: str) -> None:
        """Make a model's metrics, so that they are there with 0 before its first request."""
        for outcome in OUTCOMES:
            self.requests.labels(model, outcome)
        for stage in STAGES:
            self.stages.labels(model, stage)
        for metric in (self.examples, self.latency, self.batch_tokens, self.batch_sequences, self.batch_seconds):
            metric.labels(model)
        self.waiting.labels(model)

    def loaded(self, model: str, engine: str, precision: str) -> None:
        self.info.labels(model, engine, precision).set(1)

    def answered(self, model: str, examples: int, seconds: float, waited: float, computing: float) -> None:
        self.requests.labels(model, "success").inc()
        self.examples.labels(model).inc(examples)
        self.latency.labels(model).observe(seconds)
        self.stages.labels(model, "queue").observe(waited)
        self.stages.labels(model, "compute").observe(computing)

    def failed(self, model: str, outcome: str) -> None:
        self.requests.labels(model, outcome).inc()

    def computed(self, model: str, batch: Computed, waiting: int) -> None:
        """Called by the computing thread. `waiting`: sequences that are left in the queue."""
        self.waiting.labels(model).set(waiting)
        self.batch_tokens.labels(model).observe(batch.tokens)
        self.batch_sequences.labels(model).observe(batch.sequences)
        self.batch_seconds.labels(model).observe(batch.seconds)

    # ---- telling ----

    def _all(self) -> CollectorRegistry:
        if FOLDER not in os.environ:
            return self.registry
        every = CollectorRegistry()
        MultiProcessCollector(every)  # type: ignore[no-untyped-call]
        return every

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._all())

    def statistics(self, models: Mapping[str, int]) -> dict[str, Any]:
        """As Triton tells them. `models`: their names, and when each was last asked, in milliseconds since 1970."""
        values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self._all().collect()
            for sample in family.samples
        }

        def value(name: str, **labels: str) -> int:
            return int(values.get((name, tuple(sorted(labels.items()))), 0.0))

        def nanoseconds(name: str, **labels: str) -> dict[str, int]:
            key = tuple(sorted(labels.items()))
            return {"count": value(f"{name}_count", **labels), "ns": int(values.get((f"{name}_sum", key), 0.0) * 1e9)}

        told = []
        for name, last in models.items():
            failed = sum(value("bertkit_requests_total", model=name, outcome=each) for each in OUTCOMES[1:])
            told.append(
                {
                    "name": name,
                    "version": VERSION,
                    "last_inference": last,
                    "inference_count": value("bertkit_examples_total", model=name),
                    "execution_count": value("bertkit_batch_tokens_count", model=name),
                    "inference_stats": {
                        "success": nanoseconds("bertkit_request_seconds", model=name),
                        "fail": {"count": failed, "ns": 0},
                        "queue": nanoseconds("bertkit_stage_seconds", model=name, stage="queue"),
                        "compute_infer": nanoseconds("bertkit_stage_seconds", model=name, stage="compute"),
                    },
                    "batch_stats": [],
                }
            )
        return {"model_stats": told}
