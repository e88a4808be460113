"""int8 answers: near the full ones, the same for a sequence in any batch, and refused where they cannot be had."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.conformance.fixtures import example_batch, job, train, with_settings
from bertkit.data.features import Features
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Shape
from bertkit.distributed.world import World
from bertkit.engine.interface import Arrays, Job, Precision
from bertkit.engine.registry import choose
from bertkit.errors import UserError
from bertkit.model.config import Head, HeadKind
from bertkit.model.loading import find_source, starting_weights
from bertkit.training.setup import choose_precision
from bertkit_cpu import int8_short
from bertkit_cpu.int8 import largest_weight
from bertkit_cpu.int8_short import short_product, short_works
from bertkit_cpu.int8_static import StaticInt8Weights
from bertkit_cpu.outliers import Apart, scale_and_zero
from bertkit_cpu.ranges import METHODS
from bertkit_torch.placement import SHORT
from int8_here import needs_int8

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def features(real_data: Path) -> Features:
    vocabulary = find_source(str(real_data / "minilm")).vocabulary
    (part,) = read_split(find_task("mrpc"), real_data / "glue", "dev", vocabulary, Shape(128, rows=64))
    return part.features


def open_engine(real_data: Path, precision: Precision, scales: Arrays | None = None) -> Any:
    source = find_source(str(real_data / "minilm"))
    head = Head("classification", 2)
    backend = choose("cpu").backend
    settings = {name: setting.default for name, setting in backend.settings.items()}
    weights = starting_weights(source, head, 1).weights
    job = Job(source.config, head, weights, precision=precision, settings=settings, scales=scales or {})
    return backend.engine(job, World())


def answers(real_data: Path, features: Features, precision: Precision, examples: np.ndarray) -> np.ndarray:
    return open_engine(real_data, precision).predict(features.batch(examples))["logits"]  # type: ignore[no-any-return]


@needs_int8
def test_int8_is_near_fp32(real_data: Path, features: Features) -> None:
    everyone = np.arange(len(features))
    exact, found = (answers(real_data, features, precision, everyone) for precision in ("fp32", "int8"))
    assert 0 < np.abs(found - exact).max() < 0.02  # of logits that spread over 0.15


@needs_int8
def test_a_sequence_answers_alike_in_any_batch(real_data: Path, features: Features) -> None:
    everyone = np.arange(len(features))
    whole = answers(real_data, features, "int8", everyone)
    few = answers(real_data, features, "int8", everyone[4:8])
    assert np.abs(whole[4:8] - few).max() < 2e-3  # bf16's rounding of attention; a scale for all would be coarser
    engine = open_engine(real_data, "int8")
    alone = engine.predict(features.batch(everyone[5:6]))["logits"]
    # Sums in another order tip some roundings; where the rest is bf16, it hides most of that.
    assert np.abs(whole[5] - alone[0]).max() < (2e-3 if engine.dtype == torch.bfloat16 else 8e-3)


@needs_int8
def test_scales_found_beforehand_are_near_fp32_and_make_an_answer_alike_in_any_batch(
    real_data: Path, features: Features
) -> None:
    everyone = np.arange(len(features))
    engine = open_engine(real_data, "int8")
    assert engine.wants_calibration()
    found = engine.calibrate([features.batch(group) for group in np.array_split(everyone[:32], 4)])
    assert (found.method in METHODS, 0 < found.difference < 0.1, engine.wants_calibration()) == (True, True, False)
    assert "one scale" in engine.describe()["dense layers"]
    whole = engine.predict(features.batch(everyone))["logits"]
    exact = answers(real_data, features, "fp32", everyone)
    assert 0 < np.abs(whole - exact).max() < 0.04  # of logits that spread over 0.15
    alone = engine.predict(features.batch(everyone[5:6]))["logits"][0]  # float32 between its products, not bf16
    assert np.abs(whole[5] - alone).max() < 4e-3
    again = open_engine(real_data, "int8", found.scales)  # as a later process has them, from a file
    assert not again.wants_calibration()
    np.testing.assert_array_equal(again.predict(features.batch(everyone))["logits"], whole)


@needs_int8
@pytest.mark.parametrize("onednn_from", [16, SHORT + 1])
@pytest.mark.parametrize("tokens", [1, 16, 100])
def test_the_products_of_a_short_sequence_are_those_of_oneDNN(
    tokens: int, onednn_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With AMX those of more than a few tokens are oneDNN's, in float32."""
    largest = largest_weight()
    if not (largest and short_works(largest)):
        pytest.skip("torch has no FBGEMM here, or it is not exact")
    by_fbgemm = []
    monkeypatch.setattr(int8_short, "short_product", lambda *given: by_fbgemm.append(1) or short_product(*given))
    rng = np.random.default_rng(tokens)
    masters = {"bert.encoder.a.weight": torch.from_numpy(rng.normal(0, 0.1, (96, 64)).astype(np.float32))}
    masters["bert.encoder.a.bias"] = torch.from_numpy(rng.normal(0, 1, 96).astype(np.float32))
    x = torch.from_numpy(rng.normal(0, 1, (tokens, 64)).astype(np.float32))  # some beyond what the scale reaches
    scales = {"bert.encoder.a": np.array([2 / 255, 120])}
    weights = StaticInt8Weights(masters, torch.float32, scales, largest, onednn_from=onednn_from)
    wanted = weights.dense(x, "bert.encoder.a")
    short = weights.of_short(tokens)
    assert float((short.short_dense("bert.encoder.a")(x) - wanted).abs().max()) < 1e-5
    both = short.short_dense("bert.encoder.a", activation="gelu")(x)
    assert float((both - weights.dense_active(x, "bert.encoder.a", "gelu")).abs().max()) < 1e-4
    assert len(by_fbgemm) == (2 if tokens < onednn_from else 0)


@needs_int8
@pytest.mark.parametrize("act", ["relu", "gelu", "gelu_new"])
@pytest.mark.parametrize("kind", ["span", "tokens", "choice", "encoder"])
def test_every_head_and_activation_has_scales(kind: HeadKind, act: str) -> None:
    backend, plain = choose("cpu").backend, job(kind, precision="int8")
    batch = example_batch(kind)
    config = dataclasses.replace(plain.model, hidden_act=act)
    engines = [
        with_settings(backend, dataclasses.replace(plain, model=config, precision=precision))
        for precision in ("fp32", "int8")
    ]
    engines[1].calibrate([batch])  # type: ignore[attr-defined]
    exact, found = (engine.predict(batch) for engine in engines)
    for name in exact:
        assert np.sqrt(np.square(found[name] - exact[name]).mean()) < 0.1 * np.sqrt(np.square(exact[name]).mean())


@needs_int8
def test_states_of_several_layers_are_those_of_each_alone() -> None:
    """The sum after attention overwrites what enters a layer, which may be a state that was asked for."""
    backend, batch = choose("cpu").backend, example_batch("encoder")
    wanted = job("encoder", precision="int8")
    layers = tuple(range(wanted.model.num_hidden_layers + 1))
    scales, found = None, {}
    for some in (layers, *((layer,) for layer in layers)):
        head = Head("encoder", len(some) * wanted.model.hidden_size, some)
        engine = with_settings(backend, dataclasses.replace(wanted, head=head, scales=scales or {}))
        if scales is None:
            scales = engine.calibrate([batch]).scales
        found[some] = engine.predict(batch)["hidden"]
    alone = np.concatenate([found[layer,] for layer in layers], 1)
    np.testing.assert_array_equal(found[layers], alone)


@needs_int8
def test_scales_as_they_come_can_be_asked_for() -> None:
    engine = with_settings(choose("cpu").backend, job("classification", precision="int8"), scales="dynamic")
    assert not engine.wants_calibration()  # type: ignore[attr-defined]
    assert "per token" in engine.describe()["dense layers"]


@given(st.floats(-1e4, 0), st.floats(0, 1e4))
def test_a_scale_covers_its_bounds_and_has_zero_exactly(low: float, high: float) -> None:
    scale, zero = scale_and_zero(low, high)
    assert 0 <= zero <= 255
    steps = np.clip(np.rint(np.array([low, 0.0, high]) / scale) + zero, 0, 255) - zero
    assert steps[1] == 0
    assert np.abs(steps * scale - [low, 0, high]).max() <= 0.51 * scale


def test_the_methods_leave_out_nothing_the_little_that_costs_least_or_a_share() -> None:
    values = np.random.default_rng(1).standard_normal(50_000).astype(np.float32)
    seen = Apart(-200.0, float(values.max()), values, {})
    assert METHODS["minimum and maximum"](seen)[0] == -200.0
    assert -200 < METHODS["least squares"](seen)[0] < -150  # further in, the outlier's own error is the larger one
    assert -5 < METHODS["percentile"](seen)[0] < -3


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
