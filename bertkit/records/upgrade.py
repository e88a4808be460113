"""Records of older schemas as those of the present one: what they did not know is null, and nothing is guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bertkit.records.schema import Kind, blank

MACHINE = ("host", "hosts", "system", "machine", "logical_cpus", "memory_bytes", "processes", "launcher")


def upgraded(old: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The record of schema 1 as one of the present schema; a measurement's file as one of each case.

    Raises KeyError, TypeError or AttributeError where `old` does not fit schema 1.
    """
    if old.get("kind", "").startswith("bench-"):
        return [_case(old, case) for case in old["cases"]]
    return [_run(old)]


def _shared(old: Mapping[str, Any], kind: Kind, engine: Mapping[str, str]) -> dict[str, Any]:
    made, was = blank(kind), old["hardware"]
    made["hardware"] |= {name: was[name] for name in MACHINE if name in was} | {"engine": dict(engine)}
    made["hardware"]["device"]["count"] = was["processes"]
    made |= {name: old[name] for name in ("command", "started", "git", "versions", "backend")}
    made["energy"]["source"] = "not read by the bertkit that wrote this record"
    return made


def _run(old: Mapping[str, Any]) -> dict[str, Any]:
    was = old["hardware"]
    made = _shared(old, "train", {name: value for name, value in was.items() if name not in MACHINE})
    config = dict(old["config"])
    made["config_sources"], made["config"] = config.pop("sources"), config
    made |= {name: old[name] for name in ("precision", "metrics", "best", "losses", "updates")}
    made["majority_class"] = old.get("majority_class")
    model, data = old["model"], dict(old["data"])
    made["model"] |= {name: model[name] for name in made["model"]}
    task, batch = data.pop("task"), data.pop("global_batch")
    parts = [_part(name, part) for name, part in data.items()]
    made["data"] = {"task": task, "train": parts[0], "evaluation": parts[1:]}
    made["fairness"] |= _fairness(old, task, batch, parts)
    made["method"]["warmup_rule"] = made["fairness"]["warmup_rule"] = old["throughput"]["warmup_rule"]
    made["seeds"], made["selected"] = _seeds(old, config["seed"])
    made["evaluations"] = [_evaluation(entry) for entry in old["evaluations"]]
    made["throughput"] |= _throughput(old["throughput"])
    times = dict(old["time"])
    made["time"] |= {"step_of": "an update", "step_seconds": times.pop("update_seconds")}
    made["time"] |= {name: value for name, value in times.items() if name in made["time"]}
    made["memory"]["peak_bytes_per_device"] = old["peak_memory_bytes"]
    return made


def _part(name: str, part: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("file", "sha256", "features_sha256", "examples", "sequences", "faults", "mean_tokens")
    return blank_part(name) | {key: part.get(key) for key in kept}


def _fairness(old: Mapping[str, Any], task: str, batch: int, parts: list[dict[str, Any]]) -> dict[str, Any]:
    """What schema 1 told of it, and the settings that it kept."""
    model, config, train = old["model"], old["config"], parts[0]
    settings = {
        "sequence_length": "data.seq_length", "document_stride": "data.doc_stride", "shard": "data.shard",
        "schedule": "schedule.name", "schedule_power": "schedule.power", "schedule_end_rate": "schedule.end_rate",
        "beta1": "optimizer.beta1", "beta2": "optimizer.beta2", "epsilon": "optimizer.epsilon",
        "bias_correction": "optimizer.bias_correction", "weight_decay": "optimizer.weight_decay",
        "clip_norm": "optimizer.clip_norm", "hidden_dropout": "model.hidden_dropout",
        "attention_dropout": "model.attention_dropout", "gradients_sent_in": "ranks.gradients",
        "synchronised": "ranks.synchronise",
    }  # fmt: skip
    found = {name: config.get(key) for name, key in settings.items()}
    if config.get("ranks.learning_rate_scaling", "none") == "none":
        found["learning_rate"] = config["optimizer.learning_rate"]
    if not task.startswith("squad"):
        found["document_stride"] = None  # schema 1 kept settings that did not apply, too
    if found["schedule"] != "polynomial":
        found["schedule_power"] = None
    if found["schedule"] == "constant":
        found["schedule_end_rate"] = None
    return found | {
        "measures": "train",
        "task": task,
        "start": "random" if model["random_start"] else "checkpoint",
        "start_weights_sha256": model.get("start_sha256"),
        "parameters": model["parameters"],
        "vocabulary_sha256": model["vocabulary_sha256"],
        "lower_case": model["lower_case"],
        "corpus_sha256": train["sha256"],
        "training_features_sha256": train["features_sha256"],
        "training_sequences": train["sequences"],
        "global_batch": batch,
        "updates": old["updates"],
        "evaluation_sha256": parts[1]["sha256"] if len(parts) == 2 else None,
        "evaluation_features_sha256": parts[1]["features_sha256"] if len(parts) == 2 else None,
        "result": config.get("checkpoint.result"),
    }


def _seeds(old: Mapping[str, Any], seed: int) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    workers = old.get("workers")
    if not workers:
        return [{"seed": seed, "metrics": old["metrics"], "folder": None, "shard": None}], None
    best = next(worker for worker in workers["all"] if worker["rank"] == workers["best"])
    kept = ("metric", "mean", "standard_deviation", "note")
    chosen = {"of": workers["n"], "seed": best["seed"], **{name: workers[name] for name in kept}}
    return [{name: one[name] for name in ("seed", "metrics", "folder", "shard")} for one in workers["all"]], chosen


def _evaluation(entry: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {name: value for name, value in entry.items() if name != "step"}
    return {"step": entry["step"], "training_seconds": None, "wall_seconds": None, "metrics": metrics}


def _throughput(rates: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in rates.items() if name not in ("warmup_rule", "counted")}
    return kept | {"counted": {"slots": None, **rates["counted"]}}


def _case(old: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    made = _shared(old, "bench", case.get("engine", {}))
    settings, measures = dict(old["settings"]), old["kind"].removeprefix("bench-")
    for name, value in settings.pop("device").items():
        settings[f"device.{name}"] = value
    made["config"] = settings
    made["status"], made["reason"] = case["status"], case.get("reason")
    made["precision"] = {"name": case["precision"], "reason": None}
    made["model"]["name"] = case["model"]
    made["case"] = {name: case[name] for name in ("model", "lengths", "batch_size")} | {"loss": case.get("last_loss")}
    rules = dict(old["rules"])
    made["method"] |= {"warmup_rule": rules.pop("warm-up"), "rules": rules}
    work = case["workload"]
    made["data"]["train"] = blank_part(work["source"]) | {
        **{name: work[name] for name in ("sequences", "mean_tokens", "features_sha256", "mean_masked")},
        "tokens": {f"p{p}": work[f"tokens_p{p}"] for p in (50, 90, 99, 100)},
    }
    made["fairness"] |= {
        "measures": measures,
        "task": settings["task"],
        "lengths": work["source"],
        "training_features_sha256": work["features_sha256"] if settings["task"] else None,  # else drawn at random
        "global_batch": case["global_batch_size"],
        "warmup_rule": made["method"]["warmup_rule"],
    }
    if case["status"] == "measured":
        _figures(made, case, measures)
    return made


def _figures(made: dict[str, Any], case: Mapping[str, Any], measures: str) -> None:
    made["throughput"] |= _throughput(case["throughput"])
    shown = dict(_steps(case, measures))
    timed = shown.pop("timed", None)
    made["time"] |= {
        "training_seconds": case["throughput"]["seconds"],
        "waiting_for_data_seconds": case["waiting_for_data_seconds"],
        "steps_timed": timed,
        "step_of": "a call" if measures == "infer" else f"a mean of {case.get('updates_between_waits', 1)} updates",
        "step_seconds": {name: None if value is None else value / 1e3 for name, value in shown.items()},
    }
    made["memory"] = {
        "peak_bytes_per_device": case["peak_memory_bytes"], "at_most": case["peak_memory_at_most"],
    }  # fmt: skip


def _steps(case: Mapping[str, Any], measures: str) -> Mapping[str, Any]:
    return case["latency_milliseconds" if measures == "infer" else "update_milliseconds"]  # type: ignore[no-any-return]


def blank_part(name: str) -> dict[str, Any]:
    """A part of the data of which nothing is known yet."""
    keys = ("file", "sha256", "features_sha256", "examples", "sequences", "mean_tokens")
    return {"name": name, **dict.fromkeys(keys), "faults": [], "tokens": {}, "mean_masked": None}
