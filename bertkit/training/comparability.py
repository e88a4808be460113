"""What of a run or a measurement must be the same in another that it is compared with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from bertkit.data.sampler import PARTIAL_BATCHES
from bertkit.engine.interface import Job, LossSpec
from bertkit.model.config import ModelConfig
from bertkit.model.loading import ModelSource
from bertkit.recipes.sections import ScheduleSection
from bertkit.records.fields import Fairness
from bertkit.records.meter import TIME_BASIS, WARMUP_RULE
from bertkit.training.recipe_parts import UpdateSettings
from bertkit.training.setup import FineTuningSetup, RunSetup

# The engines' contract (`bertkit check`), in words; a backend that does otherwise does not pass it.
OPTIMIZERS = {"adamw": "AdamW, decoupled decay, in fp32 masters", "lamb": "LAMB, decoupled decay, in fp32 masters"}
TRUST_RATIOS = {"decayed": "tensors with weight decay", "all": "all tensors"}
EPSILON_PLACE = "added to the root of the second moment"
DECAY_LEAVES_OUT = "biases and LayerNorm"
CLIP_ORDER = "one global norm, after accumulation and the sum over ranks, before the moments"
LOSS_SCALE = "summed over micro-batches and ranks, divided by the global batch's number of labels"
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")


def of_run(setup: FineTuningSetup, update_settings: UpdateSettings) -> Fairness:
    """Of a fine-tuning run."""
    train, spans = setup.train, setup.task.head.kind == "span"
    return of_training(
        setup,
        update_settings,
        {
            "corpus_sha256": train.sha256,
            "training_features_sha256": train.features.digest(),
            "training_sequences": len(train.features),
            "lengths": "the task's own",
            "document_stride": setup.shape.doc_stride if spans else None,
            "most_masked": 0,
            "evaluation_sha256": together(part.sha256 for part in setup.dev),
            "evaluation_features_sha256": together(part.features.digest() for part in setup.dev),
            "evaluation_examples": sum(part.examples for part in setup.dev),
            "answer_rules": json.dumps(dataclasses.asdict(setup.rules)) if spans else None,
        },
    )


def of_training(setup: RunSetup, update_settings: UpdateSettings, of_data: Mapping[str, Any]) -> Fairness:
    """Of a training run, whatever it learns from; `of_data` is what its data adds, and overrides."""
    known = {
        "measures": "train",
        "task": setup.task.name,
        "shard": setup.shard,
        "sequence_length": update_settings.sequence_length,
        "global_batch": update_settings.global_batch,
        "result": setup.result,
        "warmup_rule": WARMUP_RULE,
        "time_basis": TIME_BASIS,
    }
    of_model = model(setup.job, setup.source, setup.fit.digest)
    return whole(of_model | optimizer(setup.job, update_settings) | known | dict(of_data))


def model(job: Job, source: ModelSource | None, start: str | None) -> dict[str, Any]:
    """`source`: None for a bare size without a vocabulary. `start`: SHA-256 of the weight file; None: random."""
    vocabulary = source.vocabulary if source and source.vocabulary.has_words else None
    return {
        "start": "checkpoint" if start else "random",
        "start_weights_sha256": start,
        "model_sha256": model_digest(job.model),
        "parameters": sum(int(array.size) for array in job.weights.values()),
        "vocabulary_rows": job.model.vocab_size,
        "tokenizer": vocabulary.variant if vocabulary else None,
        "vocabulary_sha256": vocabulary.digest if vocabulary else None,
        "lower_case": vocabulary.lower_case if vocabulary else None,
        "hidden_dropout": job.model.hidden_dropout_prob,
        "attention_dropout": job.model.attention_probs_dropout_prob,
    }


def model_digest(config: ModelConfig) -> str:
    """SHA-256 of the shape and numerics; dropout has fields of its own."""
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in DROPOUT}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def optimizer(job: Job, update_settings: UpdateSettings) -> dict[str, Any]:
    """How updates change the weights."""
    spec, schedule = job.optimizer, update_settings.schedule
    return {
        "partial_batches": PARTIAL_BATCHES,
        "updates": update_settings.updates,
        "optimizer": "; ".join([OPTIMIZERS[spec.algorithm], *_parts_of_the_model(job)]),
        "trust_ratio": TRUST_RATIOS[spec.trust_ratio] if spec.algorithm == "lamb" else "none",
        "learning_rate": update_settings.peak_rate,
        "schedule": _schedule(schedule),
        "schedule_warmup_updates": update_settings.warmup_updates,
        "schedule_power": schedule.power if schedule.name == "polynomial" else None,
        "schedule_end_rate": None if schedule.name == "constant" else schedule.end_rate,
        "beta1": spec.beta1,
        "beta2": spec.beta2,
        "epsilon": spec.epsilon,
        "epsilon_place": EPSILON_PLACE,
        "bias_correction": spec.bias_correction,
        "weight_decay": spec.weight_decay,
        "weight_decay_leaves_out": DECAY_LEAVES_OUT,
        "clip_norm": spec.clip_norm,
        "clip_order": CLIP_ORDER if spec.clip_norm else "no clipping",
        "loss_scale": "; ".join([LOSS_SCALE, *_other_loss(job.loss)]),
        "gradients_sent_in": job.exchange.gradients if update_settings.processes > 1 else "fp32",
        "synchronised": True,
    }


def _parts_of_the_model(job: Job) -> list[str]:
    """What is not trained alike in all of it."""
    decay = job.optimizer.layer_decay
    said = [f"layer-wise decay of the learning rate {decay:g}"] if decay != 1 else []
    return said + ([f"{len(job.frozen)} tensors frozen, up to {job.frozen[-1]}"] if job.frozen else [])


def _other_loss(loss: LossSpec) -> list[str]:
    """The settings that are not the plain loss's."""
    plain, by_labels = (
        LossSpec(),
        dataclasses.replace(loss, teacher=None, states=None),
    )  # a teacher's are told elsewhere
    fields = [field.name for field in dataclasses.fields(LossSpec)]
    return [f"{name} {getattr(loss, name)}" for name in fields if getattr(by_labels, name) != getattr(plain, name)]


def _schedule(schedule: ScheduleSection) -> str:
    """The schedule's name, and how it counts where that is not Hugging Face's way."""
    said: list[str] = [schedule.name]
    said += ["decay from the first update"] if schedule.decay_from == "start" else []
    said += [f"{schedule.start} updates counted as done"] if schedule.start else []
    said += [f"warm-up from update {schedule.warmup_start}"] if schedule.warmup_start else []
    return ", ".join(said)


def of_case(job: Job, source: ModelSource | None, start: str | None, known: Mapping[str, Any]) -> Fairness:
    """Of one cell of a measurement; `known` overrides."""
    return whole(model(job, source, start) | {"time_basis": TIME_BASIS} | dict(known))


def as_computed(fairness: Mapping[str, Any], engine: Mapping[str, str]) -> dict[str, Any]:
    """With what the engine says of itself (`Engine.describe`) where it was asked to compute otherwise."""
    told = engine.get("epsilon")
    return {**fairness, **({"epsilon_place": told} if told and fairness["epsilon_place"] else {})}


def together(digests: Iterable[str]) -> str | None:
    """Several files' SHA-256 as one; a single file's own."""
    found = list(digests)
    return found[0] if len(found) == 1 else hashlib.sha256("\n".join(found).encode()).hexdigest() if found else None


def whole(known: Mapping[str, Any]) -> Fairness:
    """What is known as a Fairness; the rest is null."""
    fields = [field.name for field in dataclasses.fields(Fairness)]
    return Fairness(**dict.fromkeys(fields) | dict(known))
