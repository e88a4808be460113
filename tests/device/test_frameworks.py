"""The backends of other frameworks than torch, on the CPU: what the contract does not ask, and fp16."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit_jax
import bertkit_tensorflow
from bertkit.conformance import CHECKS
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
from bertkit.engine.interface import Backend, LossSpec, Precision, Probe
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit_jax import JaxBackend
from bertkit_tensorflow import TensorFlowBackend
from command import record
from conftest import ROOT
from launchers import Started, launchers
from low_precision import NEAR, furthest_gradient


class TensorFlowInFp16(TensorFlowBackend):
    """A CPU computes in fp16 too, too slowly to be proposed."""

    def probe(self) -> Probe:
        return dataclasses.replace(super().probe(), precisions=("fp32", "fp16"))


class JaxInFp16(JaxBackend):
    """Likewise."""

    def probe(self) -> Probe:
        return dataclasses.replace(super().probe(), precisions=("fp32", "bf16", "fp16"))


IN_FP16: dict[str, Backend] = {"tensorflow": TensorFlowInFp16(), "jax": JaxInFp16()}
VERSIONS = {"tensorflow": bertkit_tensorflow.version(), "jax": bertkit_jax.version()}
FRAMEWORKS = [
    pytest.param(
        name,
        marks=pytest.mark.skipif(not version, reason=f"no package of that name: pip install 'bertkit[{name}]'"),
        id=name,
    )
    for name, version in VERSIONS.items()
]
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("name", FRAMEWORKS)]


@pytest.mark.parametrize("check", ["loss_scaling", "precisions"])
def test_the_contract_in_fp16(check: str, name: str) -> None:
    """tests/contract has the rest."""
    assert CHECKS[check](IN_FP16[name])


@pytest.mark.parametrize(
    "spec",
    [
        LossSpec(label_smoothing=0.2, class_weights=(0.5, 2.0, 1.5)),
        LossSpec(focal_gamma=2.0, class_weights=(0.5, 2.0, 1.5)),
        LossSpec(focal_gamma=0.5),
    ],
    ids=["smoothing", "focal and weights", "focal"],
)
def test_what_a_recipe_asks_of_the_loss_is_the_cpus(spec: LossSpec, name: str) -> None:
    kinds = ["classification", "tokens"] if not spec.label_smoothing else ["classification"]
    kinds += [] if spec.label_smoothing else ["multilabel"]
    for kind in kinds:
        head = HEADS[kind]  # type: ignore[index]
        weights = (spec.class_weights * 2)[: head.outputs] if spec.class_weights else ()
        wanted = dataclasses.replace(job(kind), loss=dataclasses.replace(spec, class_weights=weights))  # type: ignore[arg-type]
        made = []
        for each in ("cpu", name):
            engine = with_settings(find(each), wanted)
            losses = train(engine, example_batch(kind), kind, 1)  # type: ignore[arg-type]
            made.append((losses, first_moments(engine)))
        assert made[0][0] == pytest.approx(made[1][0], rel=1e-5)
        assert gap(made[0][1], made[1][1]) < 1e-6, kind


def test_frozen_parameters_and_layer_decay_are_the_cpus(name: str) -> None:
    frozen = tuple(each for each in job("classification").weights if each.startswith("bert.embeddings."))
    optimizer = dataclasses.replace(job("classification").optimizer, layer_decay=0.5)
    wanted = dataclasses.replace(job("classification"), frozen=frozen, optimizer=optimizer)
    engines = [with_settings(find(each), wanted) for each in ("cpu", name)]
    before = engines[1].weights()
    for engine in engines:
        train(engine, example_batch("classification"), "classification", 3)
    left, right = (engine.weights() for engine in engines)
    assert gap(left, right) < 2e-6
    assert gap({each: before[each] for each in frozen}, {each: right[each] for each in frozen}) == 0.0
    assert not [each for each in engines[1].state_dict() if each.startswith("adam.first.bert.embeddings.")]


def test_a_checkpoint_of_the_cpu_goes_on(name: str) -> None:
    """Names and shapes are the same, so a run may change its framework."""
    for kind in trained_heads(find(name)):
        cpu, other = (with_settings(find(each), job(kind)) for each in ("cpu", name))
        train(cpu, example_batch(kind), kind, 2)
        other.load_state_dict(cpu.state_dict())
        losses = [train(engine, example_batch(kind), kind, 2, first=3) for engine in (cpu, other)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4), kind
    with pytest.raises(UserError, match=r"lacks adam\.first"):
        other.load_state_dict({each: array for each, array in cpu.state_dict().items() if "adam" not in each})


@pytest.mark.parametrize("order", ["{0}, torch", "torch, {0}"])
def test_both_frameworks_live_in_one_process_and_neither_needs_the_other(order: str, name: str) -> None:
    total = {"tensorflow": "tensorflow.norm([2.0])", "jax": "jax.numpy.ones(4).sum() / 2"}[name]
    program = f"import {order.format(name)}\nassert float(torch.ones(2) @ torch.ones(2)) == float({total}) == 2"
    done = run(program)
    assert done.returncode == 0, done.stderr
    done = run(f"import sys\nimport bertkit_{name}.engine\nassert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def run(program: str, **env: str) -> subprocess.CompletedProcess[str]:
    import os

    paths = f"import sys; sys.path[:0] = {[str(ROOT), str(ROOT / 'backends'), str(ROOT / 'tests')]!r}\n"
    command = [sys.executable, "-c", paths + program]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env={**os.environ, **env})


@pytest.mark.parametrize("launcher", launchers("torchrun", "open-mpi-5"))
def test_two_ranks_learn_what_one_process_learns(launcher: str, name: str, tmp_path: Path, sample_dir: Path) -> None:
    words = (
        "train", "--backend", name, "-d", "fp32", "-m", "tiny", "-t", "sample", "-s", "32", "--quiet", "--data-dir",
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


@pytest.mark.parametrize("precision", ["tf32", "int8"])
def test_a_precision_that_it_lacks_is_refused(precision: Precision, name: str) -> None:
    with pytest.raises(UserError, match=f"does not compute in {precision}"):
        with_settings(find(name), dataclasses.replace(job("classification"), precision=precision))


def test_threads_below_none_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"device\.threads = -1"):
        with_settings(find(name), job("classification"), threads=-1)


def test_a_peak_is_measured(name: str) -> None:
    engine: Any = with_settings(find(name), job("classification"))
    assert engine.peak().flops > 1e8
    assert "float32 product" in engine.peak().source
    assert np.isfinite(engine.peak_memory() or np.nan)


def test_what_does_not_fit_is_one_line_with_the_largest_size_that_does(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = with_settings(find(name), job("classification"))
    train(engine, example_batch("classification", 4), "classification", 1)
    whole, small = engine.learn, engine.plan.sizes(example_batch("classification", 4), True).slots

    def short(made: Any, key: np.ndarray) -> None:
        if made.sizes.slots > small:
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes")
        whole(made, key)

    monkeypatch.setattr(engine, "learn", short)
    with pytest.raises(UserError, match=r"out of memory: a batch of .* does not fit .*largest planned size that fits"):
        train(engine, example_batch("classification", 40), "classification", 1)


def test_dropout_keeps_the_mean_in_bf16(name: str) -> None:
    """1 / 0.9 rounded to bf16 would lower every mean by 0.16 %."""
    done = run(MEANS[name])
    assert done.returncode == 0, done.stderr


MEANS = {
    "tensorflow": """
import tensorflow as tf
from bertkit_tensorflow.model import Dropout
values = tf.cast(tf.random.stateless_uniform([4096, 1024], [1, 2], 1.0, 2.0), tf.bfloat16)
mean = lambda of: float(tf.reduce_mean(tf.cast(of, tf.float32)))
for rate in (0.1, 0.2):
    assert abs(mean(Dropout(tf.constant([3, 5]))(values, rate)) / mean(values) - 1) < 6e-4
""",
    "jax": """
import jax, jax.numpy as jnp
from bertkit_jax.model import Dropout
values = jax.random.uniform(jax.random.key(1), (4096, 1024), minval=1, maxval=2).astype(jnp.bfloat16)
mean = lambda of: float(of.astype(jnp.float32).mean())
for rate in (0.1, 0.2):
    assert abs(mean(Dropout(jnp.array([3, 5], jnp.uint32))(values, rate)) / mean(values) - 1) < 6e-4
""",
}


def test_gradients_in_bf16_are_near_those_in_fp32(name: str) -> None:
    apart, where = furthest_gradient(find(name))
    assert apart < NEAR, where
