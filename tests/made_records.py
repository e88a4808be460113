"""Records as a run would leave them, made by hand: what a test of comparing reads. Every figure in them is made up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkit.records.files import write
from bertkit.records.schema import blank

SHA = "0123456789abcdef" * 4
FACTS = {
    "measures": "train", "task": "mrpc", "start": "checkpoint", "start_weights_sha256": SHA, "model_sha256": SHA,
    "parameters": 1000, "vocabulary_rows": 100, "tokenizer": "google", "vocabulary_sha256": SHA, "lower_case": True,
    "corpus_sha256": SHA, "training_features_sha256": SHA, "training_sequences": 3668, "shard": "", "lengths": "data",
    "sequence_length": 128, "document_stride": 128, "most_masked": 0, "global_batch": 32, "partial_batches": "kept",
    "updates": 115, "optimizer": "adamw", "trust_ratio": "none", "learning_rate": 5e-5, "schedule": "linear",
    "schedule_warmup_updates": 12,
    "schedule_power": 1.0, "schedule_end_rate": 0.0, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8,
    "epsilon_place": "outside the root", "bias_correction": True, "weight_decay": 0.01,
    "weight_decay_leaves_out": "biases and LayerNorm", "clip_norm": 1.0, "clip_order": "global, after accumulation",
    "loss_scale": "global labels", "gradients_sent_in": "fp32", "synchronised": True, "hidden_dropout": 0.1,
    "attention_dropout": 0.1, "result": "last", "evaluation_sha256": SHA, "evaluation_features_sha256": SHA,
    "evaluation_examples": 408, "answer_rules": "argmax", "warmup_rule": "a tenth", "time_basis": "wall",
}  # fmt: skip


def other(value: Any) -> Any:
    """A value of the same type that is not this one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    named = {SHA: "f" * 64, "train": "infer", "checkpoint": "random"}
    return named.get(value, f"not {value}")


def record(
    *,
    seed: int = 1,
    devices: int = 1,
    rate: float | None = 100.0,
    metrics: Mapping[str, float] | None = None,
    losses: Sequence[float | None] = (0.7, 0.6, 0.5),
    facts: Mapping[str, Any] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A whole record. `changes`: further keys; a part that is a mapping is merged into what is there."""
    made = blank("train")
    scores = {"accuracy": 0.8, "f1": 0.85} if metrics is None else dict(metrics)
    made["config"] = {"seed": seed, "optimizer.beta1": 0.9, "model.layout": "auto"}
    made["versions"] = {"bertkit": "0.1.0", "torch": "2.13.0"}
    made["hardware"] |= {"processes": devices, "hosts": ["box"] * devices, "engine": {"layout": "unpadded"}}
    made["hardware"]["device"] |= {"kind": "accelerator", "model": "a chip", "count": devices}
    made["backend"] = {"name": "cpu", "reason": "asked for"}
    made["precision"] = {"name": "fp32", "reason": "asked for"}
    made["model"]["name"] = "minilm"
    made["fairness"] |= FACTS | dict(facts or {})
    made["metrics"] = scores
    made["seeds"] = [{"seed": seed, "metrics": scores, "folder": None, "shard": None}] if scores else []
    made["losses"] = list(losses)
    made["updates"] = len(losses)
    made["throughput"] |= {
        "sequences_per_second": rate,
        "sequences_per_second_per_device": None if rate is None else rate / devices,
    }
    made["energy"]["source"] = "not read"
    for key, value in changes.items():
        made[key] = made[key] | value if isinstance(value, dict) and isinstance(made[key], dict) else value
    return made


def save(folder: Path, **changes: Any) -> Path:
    """A run's folder with such a record in it."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "record.json", record(**changes))
    return folder


def evaluations(*seen: tuple[int, float | None, float]) -> list[dict[str, Any]]:
    """(update, seconds of training, accuracy) each."""
    return [
        {"step": step, "training_seconds": seconds, "wall_seconds": seconds, "metrics": {"accuracy": accuracy}}
        for step, seconds, accuracy in seen
    ]
