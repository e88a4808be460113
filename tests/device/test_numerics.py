"""Softmax in fp32 or in the compute dtype, GELU by erf or by tanh: what each changes, on a real encoder."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from bertkit.conformance.fixtures import example_batch, job, train, with_settings
from bertkit.data.features import Features
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Shape
from bertkit.distributed.world import World
from bertkit.engine.interface import Job, Precision
from bertkit.engine.registry import choose
from bertkit.model.config import Head, ModelConfig
from bertkit.model.loading import find_source, starting_weights
from bertkit.recipes.sections import ModelSection
from bertkit.training.recipe_parts import with_numerics


@pytest.fixture(scope="module")
def features(real_data: Path) -> Features:
    vocabulary = find_source(str(real_data / "minilm")).vocabulary
    (part,) = read_split(find_task("mrpc"), real_data / "glue", "dev", vocabulary, Shape(128, rows=48))
    return part.features


def logits(real_data: Path, features: Features, section: ModelSection, precision: Precision) -> np.ndarray:
    source = find_source(str(real_data / "minilm"))
    head = Head("classification", 2)
    backend = choose("cpu").backend
    settings = {name: setting.default for name, setting in backend.settings.items()} | {"bf16": "force"}
    weights = starting_weights(source, head, 1).weights
    job = Job(with_numerics(source.config, section), head, weights, precision=precision, settings=settings)
    return backend.engine(job, World()).predict(features.batch(np.arange(len(features))))["logits"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_softmax_changes_what_rounding_does_and_no_more(
    real_data: Path, features: Features, precision: Precision
) -> None:
    usual, exact = (logits(real_data, features, ModelSection(softmax=how), precision) for how in ("compute", "fp32"))
    apart = float(np.abs(usual - exact).max())
    assert apart == 0 if precision == "fp32" else 0 < apart < 0.05


@pytest.mark.slow
def test_the_tanh_form_of_gelu_is_near_the_exact_one(real_data: Path, features: Features) -> None:
    usual, exact, tanh = (
        logits(real_data, features, ModelSection(gelu=how), "fp32") for how in ("config", "exact", "tanh")
    )
    assert np.array_equal(usual, exact)  # MiniLM's config says "gelu"
    assert 0 < np.abs(tanh - exact).max() < 0.02


def test_what_is_set_stays_with_the_model() -> None:
    config = ModelConfig(32, 2, 2, 64)
    changed = with_numerics(config, ModelSection(gelu="tanh", softmax="fp32"))
    assert changed == dataclasses.replace(config, hidden_act="gelu_new", softmax="fp32")
    assert with_numerics(config, ModelSection()) == config


def test_pad_may_be_a_target() -> None:
    """No id stands for "ignore": where [PAD], id 0, is what was masked, a model learns to say it."""
    batch = dict(example_batch("pretraining"))
    batch["masked_labels"] = np.zeros_like(batch["masked_labels"])
    engine = with_settings(choose("cpu").backend, job("pretraining"))
    losses = train(engine, batch, "pretraining", 60)
    assert losses[-1] < losses[0] / 2
    assert (engine.predict(batch)["masked_logits"].argmax(-1) == 0).all()
