"""What TensorFlow's backend has besides: XLA, and quiet. tests/device/test_frameworks.py has the rest."""

from __future__ import annotations

import os

import pytest

import bertkit_tensorflow
from bertkit.conformance.fixtures import example_batch, gap, job, train, with_settings
from bertkit_tensorflow import TensorFlowBackend
from bertkit_tensorflow.quiet import without_notes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not bertkit_tensorflow.version(), reason="no TensorFlow: pip install 'bertkit[tensorflow]'"),
]


def test_xla_computes_the_same(capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("classification", "pretraining"):
        made = []
        for xla in (False, True):
            engine = with_settings(TensorFlowBackend(), job(kind), xla=xla)  # type: ignore[arg-type]
            losses = train(engine, example_batch(kind), kind, 3)  # type: ignore[arg-type]
            made.append((losses, engine.predict(example_batch(kind)), engine.describe()["programs"]))  # type: ignore[arg-type]
        assert made[0][0] == pytest.approx(made[1][0], rel=1e-5)
        assert gap(made[0][1], made[1][1]) < 1e-4  # Adam's first updates divide roundings by roundings
        assert [said for *_, said in made] == ["TensorFlow's graphs", "compiled by XLA"]
    twice = [
        train(with_settings(TensorFlowBackend(), job("span", dropout=True), xla=True), example_batch("span"), "span", 2)
        for _ in range(2)
    ]
    assert twice[0] == twice[1]
    assert "I0000" not in capfd.readouterr().err


def test_notes_are_left_out_and_the_rest_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    with without_notes():
        os.write(2, b"I0000 00:00:1795976021.1 1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"To enable the following instructions: AVX2, rebuild TensorFlow.\n")
        os.write(2, b"E0000 00:00:1795976021.1 1 cuda.cc:1] no driver\nplain\n")
    assert capfd.readouterr().err == "E0000 00:00:1795976021.1 1 cuda.cc:1] no driver\nplain\n"
