"""int8 of a model with a few inputs that are far larger than the others: kept apart, on every path and in exports."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.conformance.fixtures import HEADS, with_settings
from bertkit.engine.exports import ExportedModel, find_format
from bertkit.engine.interface import Job
from bertkit.engine.registry import find
from bertkit.model.config import Arrays
from bertkit.training.export_checks import edge_batches, verify
from bertkit_cpu import outliers
from bertkit_cpu.ranges import difference
from exported import small
from int8_here import needs_int8, weight_bits

torch = pytest.importorskip("torch")
pytestmark = needs_int8
LAYER = "bert.encoder.layer.0."


@pytest.fixture(scope="module")
def planted() -> Job:
    """One channel of the hidden states 40 times as large, and one neuron that reaches 30."""
    job = small(HEADS["classification"])
    weights = {name: array.copy() for name, array in job.weights.items()}
    weights[f"{LAYER}attention.output.LayerNorm.weight"][3] *= 40
    weights[f"{LAYER}output.dense.weight"] *= 10  # so that what the layer computes is seen in the logits
    weights[f"{LAYER}intermediate.dense.weight"][:, 3] /= 40
    weights[f"{LAYER}intermediate.dense.bias"][5] += 30
    return dataclasses.replace(job, weights=weights)


def calibrated(job: Job) -> tuple[Any, Arrays]:
    engine: Any = with_settings(find("cpu"), dataclasses.replace(job, precision="int8"))
    batches = [batch for several in edge_batches(job.model, job.head).values() for batch in several]
    return engine, engine.calibrate(batches).scales


def error(engine: Any, job: Job) -> float:
    """Of the logits, beside float32's."""
    exact = with_settings(find("cpu"), job)
    batches = edge_batches(job.model, job.head)["mixed lengths"]
    return difference([engine.predict(one) for one in batches], [exact.predict(one) for one in batches])


def test_they_are_found_and_the_logits_are_far_nearer(planted: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, scales = calibrated(planted)
    divisors, copies = scales[f"{LAYER}intermediate.dense.divisors"], scales[f"{LAYER}output.dense.copies"]
    assert divisors.argmax() == 3
    assert (divisors > 1).sum() <= outliers.MOST_DIVIDED
    assert copies[5] >= 1
    assert copies.sum() <= outliers.MOST_COPIES
    assert copies.sum() % outliers.TOGETHER == 0, "products of another width are slower"
    monkeypatch.setattr(outliers, "SHARES", (1.0,))
    plain, none = calibrated(planted)
    assert not [name for name in none if name.endswith(("divisors", "copies"))]
    kept, all_alike = error(engine, planted), error(plain, planted)
    assert kept < 0.5 * all_alike, (kept, all_alike)


def test_a_model_without_any_has_no_more_than_scales() -> None:
    _, scales = calibrated(small(HEADS["classification"]))
    assert not [name for name in scales if name.endswith("copies")]


def test_one_short_sequence_is_rounded_alike(planted: Job) -> None:
    engine, _ = calibrated(planted)
    (batch, *_) = edge_batches(planted.model, planted.head)["mixed lengths"]
    together = engine.predict(batch)["logits"]
    ends = batch["cu_seqlens"]
    for place in range(len(ends) - 1):
        alone = {
            name: array[ends[place] : ends[place + 1]] if len(array) == ends[-1] else array[place : place + 1]
            for name, array in batch.items()
            if name != "cu_seqlens"
        }
        alone["cu_seqlens"] = np.array([0, ends[place + 1] - ends[place]], ends.dtype)
        np.testing.assert_allclose(
            engine.predict(alone)["logits"][0], together[place], atol=0.1 * np.abs(together).max()
        )


@pytest.mark.parametrize("form", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_exports_keep_them_apart_too(form: str, planted: Job, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")
    pytest.importorskip("openvino" if form == "openvino" else "onnxruntime")
    _, scales = calibrated(planted)
    chosen = find_format(form)
    known = {name: setting.default for name, setting in chosen.settings.items()} | {"weight_bits": weight_bits()}
    model = ExportedModel(planted.model, planted.head, planted.weights, "int8", settings=known, scales=scales)  # type: ignore[arg-type]
    chosen.write(model, tmp_path)
    loaded = chosen.load(tmp_path)
    assert loaded is not None
    batches = edge_batches(planted.model, planted.head)
    engine = with_settings(find("cpu"), dataclasses.replace(planted, precision="int8", scales=scales))
    near, exact = (
        verify(loaded, engine, model, batches),
        verify(loaded, with_settings(find("cpu"), planted), model, batches),
    )
    assert max(near.values()) < 0.1
    assert max(exact.values()) < 0.1
