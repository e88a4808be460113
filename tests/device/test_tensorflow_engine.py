"""The TensorFlow backend on the CPU: the contract, and what the contract does not ask. Skipped without TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import bertkit_tensorflow
from bertkit.conformance import CHECKS, Skip
from bertkit.conformance.fixtures import (
    HEADS,
    example_batch,
    first_moments,
    gap,
    job,
    train,
    trained_heads,
    with_settings,
)
from bertkit.engine.interface import LossSpec, Precision, Probe
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit_tensorflow import TensorFlowBackend
from bertkit_tensorflow.quiet import without_notes
from command import record
from conftest import ROOT
from launchers import Started, launchers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not bertkit_tensorflow.version(), reason="no TensorFlow: pip install 'bertkit[tensorflow]'"),
]


class InFp16(TensorFlowBackend):
    """A CPU computes in fp16 too, too slowly to be proposed."""

    def probe(self) -> Probe:
        return dataclasses.replace(super().probe(), precisions=("fp32", "fp16"))


@pytest.mark.parametrize("check", CHECKS)
def test_the_contract(check: str) -> None:
    backend = InFp16() if check in ("loss_scaling", "precisions") else TensorFlowBackend()
    try:
        assert CHECKS[check](backend)
    except Skip as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize(
    "spec",
    [
        LossSpec(class_weights=(0.5, 2.0, 1.5)),
        LossSpec(label_smoothing=0.2, class_weights=(0.5, 2.0, 1.5)),
        LossSpec(focal_gamma=2.0, class_weights=(0.5, 2.0, 1.5)),
        LossSpec(focal_gamma=0.5),
    ],
    ids=["weights", "smoothing", "focal and weights", "focal"],
)
def test_what_a_recipe_asks_of_the_loss_is_the_cpus(spec: LossSpec) -> None:
    kinds = ["classification", "tokens"] if not spec.label_smoothing else ["classification"]
    kinds += [] if spec.label_smoothing else ["multilabel"]
    for kind in kinds:
        head = HEADS[kind]  # type: ignore[index]
        weights = (spec.class_weights * 2)[: head.outputs] if spec.class_weights else ()
        wanted = dataclasses.replace(job(kind), loss=dataclasses.replace(spec, class_weights=weights))  # type: ignore[arg-type]
        made = []
        for name in ("cpu", "tensorflow"):
            engine = with_settings(find(name), wanted)
            losses = train(engine, example_batch(kind), kind, 1)  # type: ignore[arg-type]
            made.append((losses, first_moments(engine)))
        assert made[0][0] == pytest.approx(made[1][0], rel=1e-5)
        assert gap(made[0][1], made[1][1]) < 1e-6, kind


def test_frozen_parameters_and_layer_decay_are_the_cpus() -> None:
    frozen = tuple(name for name in job("classification").weights if name.startswith("bert.embeddings."))
    optimizer = dataclasses.replace(job("classification").optimizer, layer_decay=0.5)
    wanted = dataclasses.replace(job("classification"), frozen=frozen, optimizer=optimizer)
    engines = [with_settings(find(name), wanted) for name in ("cpu", "tensorflow")]
    before = engines[1].weights()
    for engine in engines:
        train(engine, example_batch("classification"), "classification", 3)
    left, right = (engine.weights() for engine in engines)
    assert gap(left, right) < 2e-6
    assert gap({name: before[name] for name in frozen}, {name: right[name] for name in frozen}) == 0.0
    assert not [name for name in engines[1].state_dict() if name.startswith("adam.first.bert.embeddings.")]


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


def test_a_checkpoint_of_the_cpu_goes_on() -> None:
    """Names and shapes are the same, so a run may change its framework."""
    for kind in trained_heads(TensorFlowBackend()):
        cpu, other = (with_settings(find(name), job(kind)) for name in ("cpu", "tensorflow"))
        train(cpu, example_batch(kind), kind, 2)
        other.load_state_dict(cpu.state_dict())
        losses = [train(engine, example_batch(kind), kind, 2, first=3) for engine in (cpu, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), kind
    with pytest.raises(UserError, match=r"lacks adam\.first"):
        other.load_state_dict({name: array for name, array in cpu.state_dict().items() if "adam" not in name})


@pytest.mark.parametrize("order", ["tensorflow, torch", "torch, tensorflow"])
def test_both_frameworks_live_in_one_process_and_neither_needs_the_other(order: str) -> None:
    program = f"import {order}\nassert float(torch.ones(2) @ torch.ones(2)) == float(tensorflow.norm([2.0])) == 2"
    assert _run(program).returncode == 0
    alone = "import sys\nimport bertkit_tensorflow.engine\nassert 'torch' not in sys.modules"
    done = _run(alone)
    assert done.returncode == 0, done.stderr


def _run(program: str) -> subprocess.CompletedProcess[str]:
    paths = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'backends')]!r}\n"
    return subprocess.run(
        [sys.executable, "-c", paths + program], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize("launcher", launchers("torchrun", "open-mpi-5"))
def test_two_ranks_learn_what_one_process_learns(launcher: str, tmp_path: Path, sample_dir: Path) -> None:
    words = (
        "train", "--backend", "tf", "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "--quiet", "--data-dir",
        str(sample_dir), "--set", "data.eval_rows=101", "--set", "model.hidden_dropout=0.0", "--set",
        "model.attention_dropout=0.0", "--set", "log.every=1", "--set", "train.steps=6", "--set", "device.shapes=2",
        "--set", "device.threads=1",
    )  # fmt: skip
    ends = [
        Started(tmp_path, launcher, ranks, *words, "-b", str(32 // ranks), "-o", str(ranks)).finish()
        for ranks in (1, 2)
    ]
    for end in ends:
        assert end.returncode == 0, end.stderr
        assert "oneDNN custom operations" not in end.stderr
    one, two = (record(tmp_path / str(ranks)) for ranks in (1, 2))
    assert two["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert two["metrics"] == one["metrics"]
    assert two["hardware"]["processes"] == 2


class TestRefusals:
    precisions: ClassVar[tuple[Precision, ...]] = ("tf32", "int8")

    @pytest.mark.parametrize("precision", precisions)
    def test_a_precision_that_it_lacks(self, precision: Precision) -> None:
        with pytest.raises(UserError, match=f"does not compute in {precision}"):
            with_settings(TensorFlowBackend(), dataclasses.replace(job("classification"), precision=precision))

    def test_threads_below_none(self) -> None:
        with pytest.raises(UserError, match=r"device\.threads = -1"):
            with_settings(TensorFlowBackend(), job("classification"), threads=-1)


def test_notes_are_left_out_and_the_rest_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    import os

    with without_notes():
        os.write(2, b"I0000 00:00:1795976021.1 1 port.cc:153] oneDNN custom operations are on.\n")
        os.write(2, b"To enable the following instructions: AVX2, rebuild TensorFlow.\n")
        os.write(2, b"E0000 00:00:1795976021.1 1 cuda.cc:1] no driver\nplain\n")
    assert capfd.readouterr().err == "E0000 00:00:1795976021.1 1 cuda.cc:1] no driver\nplain\n"


def test_a_peak_is_measured() -> None:
    engine = with_settings(TensorFlowBackend(), job("classification"))
    assert engine.peak().flops > 1e8
    assert "float32 product" in engine.peak().source
    assert np.isfinite(engine.peak_memory() or np.nan)
