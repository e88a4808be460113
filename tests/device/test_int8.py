"""int8 answers: near the full ones, the same for a sequence in any batch, and refused where they cannot be had."""

from __future__ import annotations

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
from bertkit.errors import UserError
from bertkit.model.config import Head
from bertkit.model.loading import find_source, starting_weights
from bertkit.training.setup import choose_precision
from bertkit_cpu.topology import has_int8, native_bf16, read_cpu

needs_int8 = pytest.mark.skipif(
    not (has_int8(read_cpu()) and native_bf16(read_cpu())[0]), reason="this CPU lacks VNNI or AMX, or bf16"
)


@pytest.fixture(scope="module")
def features(real_data: Path) -> Features:
    vocabulary = find_source(str(real_data / "minilm")).vocabulary
    (part,) = read_split(find_task("mrpc"), real_data / "glue", "dev", vocabulary, Shape(128, rows=64))
    return part.features


def answers(real_data: Path, features: Features, precision: Precision, examples: np.ndarray) -> np.ndarray:
    source = find_source(str(real_data / "minilm"))
    head = Head("classification", 2)
    backend = choose("cpu").backend
    settings = {name: setting.default for name, setting in backend.settings.items()}
    weights = starting_weights(source, head, 1).weights
    engine = backend.engine(Job(source.config, head, weights, precision=precision, settings=settings), World())
    return engine.predict(features.batch(examples))["logits"]


@needs_int8
def test_int8_is_near_fp32(real_data: Path, features: Features) -> None:
    everyone = np.arange(len(features))
    exact, found = (answers(real_data, features, precision, everyone) for precision in ("fp32", "int8"))
    assert 0 < np.abs(found - exact).max() < 0.02  # of logits that spread over 0.15


@needs_int8
def test_a_sequence_answers_alike_in_any_batch(real_data: Path, features: Features) -> None:
    everyone = np.arange(len(features))
    whole = answers(real_data, features, "int8", everyone)
    alone = answers(real_data, features, "int8", everyone[5:6])
    assert np.abs(whole[5] - alone[0]).max() < 2e-3  # bf16's rounding of attention; a scale for all would be coarser


def test_nothing_is_trained_in_int8() -> None:
    backend = choose("cpu").backend
    with pytest.raises(UserError, match="int8 is for inference, not for training"):
        choose_precision(backend, "int8")
    assert choose_precision(backend, "int8", training=False)[0] == "int8"
    with pytest.raises(UserError, match="backend null has no int8"):
        choose_precision(choose("null").backend, "int8", training=False)


@needs_int8
def test_the_engine_refuses_to_train_in_int8() -> None:
    engine = with_settings(choose("cpu").backend, job("classification", precision="int8"))
    with pytest.raises(UserError, match="int8 is for inference"):
        train(engine, example_batch("classification"), "classification", 1)
