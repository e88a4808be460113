"""The table of settings: each described, each with its range, each refused by its own name."""

from __future__ import annotations

import dataclasses

import pytest

from bertkit.errors import UserError
from bertkit.recipes.recipe import KEYS, Recipe, Value, build, check_key, flatten, to_flat

WRONG: list[tuple[str, Value]] = [
    ("data.shard", "1/0"),
    ("ranks.synchronise", "perhaps"),
    ("ranks.shard_data", 2),
    ("ranks.learning_rate_scaling", "cubic"),
    ("precision", "int4"),
    ("seed", -1),
    ("model.casing", "mixed"),
    ("model.hidden_dropout", 1.0),
    ("model.attention_dropout", -0.1),
    ("model.layout", "dense"),
    ("data.seq_length", 2),
    ("data.train_rows", -1),
    ("data.eval_rows", -5),
    ("train.batch_size", 0),
    ("train.micro_batch_size", -1),
    ("train.epochs", -0.5),
    ("train.epochs", float("nan")),
    ("train.epochs", float("inf")),
    ("train.steps", -1),
    ("optimizer.learning_rate", -1e-5),
    ("optimizer.learning_rate", float("inf")),
    ("optimizer.weight_decay", -0.01),
    ("optimizer.beta1", 1.0),
    ("optimizer.beta2", 1.5),
    ("optimizer.epsilon", 0.0),
    ("optimizer.bias_correction", "maybe"),
    ("optimizer.clip_norm", -1.0),
    ("optimizer.name", "sgd"),
    ("optimizer.trust_ratio", "some"),
    ("optimizer.shard", "perhaps"),
    ("optimizer.layer_decay", 0.0),
    ("optimizer.layer_decay", 1.01),
    ("loss.label_smoothing", 1.0),
    ("loss.focal_gamma", -0.5),
    ("train.freeze", "some"),
    ("train.freeze", -1),
    ("table.fold", "0/1"),
    ("evaluation.calibrate", "perhaps"),
    ("loss_scaling.initial", 0.0),
    ("loss_scaling.dynamic", "perhaps"),
    ("loss_scaling.grow_after", 0),
    ("loss_scaling.floor", 0.0),
    ("loss_scaling.patience", 0),
    ("schedule.name", "cosine"),
    ("schedule.warmup", 1.1),
    ("schedule.warmup_steps", -1),
    ("schedule.power", 0.0),
    ("schedule.end_rate", -1.0),
    ("schedule.start", -1),
    ("schedule.decay_from", "never"),
    ("evaluation.every", -1),
    ("evaluation.batch_size", 0),
    ("model.allow_missing", "perhaps"),
    ("model.gelu", "sharp"),
    ("model.softmax", "bf8"),
    ("data.doc_stride", 0),
    ("data.query_length", 0),
    ("data.strict", "perhaps"),
    ("answers.n_best", 0),
    ("answers.longest", 0),
    ("answers.null_threshold", "high"),
    ("checkpoint.every", -1),
    ("checkpoint.keep", 0),
    ("checkpoint.result", "worst"),
    ("log.every", 0),
    ("ranks.gradients", "fp8"),
    ("ranks.overlap", "perhaps"),
    ("optimizer.name", "sgd"),
    ("optimizer.trust_ratio", "none"),
    ("loss_scaling.initial", 0),
    ("loss_scaling.dynamic", "perhaps"),
    ("loss_scaling.grow_after", 0),
    ("loss_scaling.floor", 0),
    ("loss_scaling.patience", 0),
    ("ranks.timeout", 0),
    ("optimizer.name", "sgd"),
    ("optimizer.trust_ratio", "some"),
    ("loss_scaling.initial", 0.0),
    ("loss_scaling.dynamic", "perhaps"),
    ("loss_scaling.grow_after", 0),
    ("loss_scaling.floor", 0.0),
    ("loss_scaling.patience", 0),
    ("data.held_out", 1.5),
    ("data.masking", "random"),
    ("data.masked_share", -0.1),
    ("data.most_masked", -1),
    ("data.whole_words", "perhaps"),
    ("train.global_batch", -1),
    ("train.steps_this_run", -1),
    ("train.phases", "2,1"),
    ("schedule.decay_from", "middle"),
    ("schedule.start", -1),
    ("schedule.warmup_start", 0.5),
    ("phase2.seq_length", 2),
    ("phase2.batch_size", 0),
    ("phase2.micro_batch_size", -1),
    ("phase2.global_batch", -1),
    ("phase2.steps", -1),
    ("phase2.learning_rate", -1.0),
    ("phase2.warmup", 1.1),
    ("phase2.warmup_steps", -1),
    ("phase2.power", 0.0),
    ("phase2.start", -1),
    ("phase2.most_masked", -1),
    ("evaluation.every_samples", -1),
    ("evaluation.start_samples", -1),
    ("evaluation.target_mlm_accuracy", 72.0),
    ("log.mllog", "perhaps"),
    ("log.dllogger", "perhaps"),
    ("log.tensorboard", "perhaps"),
    ("log.profile", "last"),
    ("model.start", "fresh"),
    ("offline", "perhaps"),
    ("table.header", "perhaps"),
    ("evaluation.patience", -1),
    ("table.empty", "perhaps"),
    ("table.dev_share", 1.5),
    ("table.split_seed", -1),
    ("model.layers", "last"),
    ("distill.learn", "everything"),
    ("distill.temperature", 0.0),
    ("distill.soft", -1.0),
    ("distill.hard", -1.0),
    ("distill.cosine", -1.0),
    ("distill.teacher_layer", -1),
    ("distill.relation_heads", -1),
    ("distill.cache_gb", -1.0),
]
EDGES: list[tuple[str, Value]] = [
    ("model.hidden_dropout", 0.0),
    ("model.hidden_dropout", 0.999),
    ("data.seq_length", 3),
    ("train.batch_size", 1),
    ("train.epochs", 0.0),
    ("schedule.warmup", 0.0),
    ("schedule.warmup", 1.0),
    ("optimizer.clip_norm", 0.0),
    ("checkpoint.keep", 1),
    ("seed", 0),
    ("train.phases", "1,2"),
    ("log.profile", "3-5"),
    ("phase2.steps", None),
]


@pytest.mark.parametrize("name", sorted(KEYS))
def test_every_key_is_described(name: str) -> None:
    key = KEYS[name]
    assert key.name == name
    assert len(key.description) >= 10
    assert "\n" not in key.description


def test_the_table_is_the_recipe() -> None:
    flat = to_flat(Recipe())
    assert list(KEYS) == list(flat)
    assert {name: key.default for name, key in KEYS.items()} == flat


@pytest.mark.parametrize(("name", "value"), WRONG, ids=str)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: Value) -> None:
    with pytest.raises(UserError) as caught:
        build({name: value}, {name: "some place"})
    assert caught.value.cause.startswith(f"some place: {name} = {value!r}: ")
    assert caught.value.cure == KEYS[name].description
    assert "pydantic" not in str(caught.value)


def test_a_range_is_tried_of_every_number_and_choice() -> None:
    texts = "backend task output model.name model.vocab data.dir data.cache data.train_file data.dev_file"
    texts += " ranks.collectives data.eval_dir phase2.data_dir phase2.eval_dir train.moments_from"
    texts += " table.text table.text_pair table.label table.separator table.group table.delimiter table.encoding"
    texts += " table.choices loss.class_weights"
    texts += " evaluation.metric distill.teacher distill.teacher_backend distill.transfer"
    free = set(texts.split())  # any text
    assert {name for name, _ in WRONG} == set(KEYS) - free


@pytest.mark.parametrize(("name", "value"), EDGES, ids=str)
def test_the_edge_of_a_range_belongs_to_it(name: str, value: Value) -> None:
    assert to_flat(build({name: value}, {}))[name] == value


def test_an_error_without_a_known_source_says_the_recipe() -> None:
    with pytest.raises(UserError, match=r"^the recipe: seed = -1"):
        build({"seed": -1}, {})


@pytest.mark.parametrize("name", ["sed", "train", "train.batch", "device", "Train.batch_size", ""])
def test_an_unknown_key_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="there is no setting"):
        check_key(name, "somewhere")


def test_known_keys_and_device_keys_pass() -> None:
    for name in (*KEYS, "device.threads", "device.anything"):
        check_key(name, "somewhere")


def test_flatten_and_build_are_each_others_inverse() -> None:
    recipe = build({"task": "cola", "data.seq_length": 64, "device.a": 1, "device.b.c": "d"}, {})
    assert recipe.data.seq_length == 64
    assert recipe.device == {"a": 1, "b.c": "d"}
    assert build(to_flat(recipe), {}) == recipe
    assert flatten({"a": {"b": {"c": 1}, "d": 2}, "e": 3}) == {"a.b.c": 1, "a.d": 2, "e": 3}


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Recipe().seed = 3  # type: ignore[misc]
