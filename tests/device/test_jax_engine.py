"""The JAX backend on the CPU: several devices in one process, and programs for chips that are not here."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bertkit_jax
from bertkit.conformance.fixtures import HEADS, MODEL, example_batch, job, part, train
from bertkit.engine.interface import BatchLimits, DrawnBatch, Limits, label_counts
from conftest import ROOT, Run
from profiles import profiled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not bertkit_jax.version(), reason="no JAX: pip install 'bertkit[jax]'"),
]
ON_EIGHT = """
import sys, json
sys.path[:0] = {paths!r}
import jax
from bertkit.conformance.fixtures import example_batch, gap, job, train, with_settings
from bertkit_jax import JaxBackend
assert len(jax.devices()) == 8
for layout in ("packed", "padded"):
    for kind in ("pretraining", "span", "regression") if layout == "packed" else ("classification", "choice"):
        made = []
        for devices in (1, 8):
            engine = with_settings(JaxBackend(), job(kind, layout), devices=devices)
            losses = train(engine, example_batch(kind, 30), kind, 2)
            answers = engine.predict(example_batch(kind, 30))
            if kind == "span":  # no loss depends on what all places have in common: its gradient is rounding
                answers = {{name: logits - logits.mean() for name, logits in answers.items()}}
            made.append((losses, answers, engine.slots([5, 9, 3])))
        one, eight = made
        assert max(abs(a - b) for a, b in zip(one[0], eight[0])) < 1e-5, (kind, one[0], eight[0])
        assert gap(one[1], eight[1]) < 2e-4, (kind, gap(one[1], eight[1]))
        assert eight[2] % 8 == 0
one, again = (train(with_settings(JaxBackend(), job("span", dropout=True), devices=8), example_batch("span"), "span", 2)
              for _ in range(2))
assert one == again
"""


def test_eight_devices_learn_and_answer_as_one_does() -> None:
    paths = [str(ROOT), str(ROOT / "backends"), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT.format(paths=paths)], capture_output=True, text=True, timeout=900, check=False,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_shares_are_the_batch(kind: str, devices: int) -> None:
    """Each part of a cut batch is what an independent choice of its examples gives, and none is over."""
    from bertkit_jax.shares import cut

    batch = example_batch(kind, 12, seed=4)  # type: ignore[arg-type]
    each = HEADS[kind].sequences_each  # type: ignore[index]
    parts = cut(batch, devices, each)
    assert len(parts) == devices
    start = 0
    for found in parts:
        count = len(found["example_ids"])
        wanted = part(batch, np.arange(start, start + count))
        start += count
        assert set(found) == set(wanted)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert start == len(batch["example_ids"])


def test_a_share_is_within_the_limits_that_its_sizes_were_planned_by() -> None:
    from bertkit_jax.shares import SharedPlan

    stream = np.random.default_rng(0)
    lengths = [stream.integers(3, 41, 24) for _ in range(40)]
    most = BatchLimits(24, 40, masked=24 * 6, drawn=tuple(DrawnBatch(each, 24 * 4) for each in lengths))
    wanted = dataclasses.replace(job("classification"), limits=Limits((most,), (most,)))
    plan = SharedPlan(wanted, 4)
    for number in range(40):
        batch = example_batch("classification", 24, seed=number)
        made = plan.make(batch, label_counts("classification", [batch]))
        assert made.sizes in set(plan.planned(training=True))
        assert made.whole["input_ids"].shape == (4, made.sizes.slots)
        assert made.whole["input_ids"].dtype == np.int32


def test_a_mask_has_its_rate_and_its_gradient_is_the_same_mask() -> None:
    import jax
    import jax.numpy as jnp

    from bertkit_jax.model import drop

    values = jnp.ones((512, 1024))
    for rate in (0.1, 0.5):
        key = jnp.array([3, 5], jnp.uint32)
        kept, gradient = jax.value_and_grad(lambda x, key=key, rate=rate: drop(x, key, rate).sum())(values)
        mask = np.asarray(drop(values, key, rate))
        np.testing.assert_array_equal(np.asarray(gradient), mask)
        assert float(kept) == pytest.approx(values.size, rel=5e-3)
        assert (mask == 0).mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / values.size) ** 0.5)
        columns = (mask == 0).mean(0)
        assert columns.std() == pytest.approx((rate * (1 - rate) / 512) ** 0.5, rel=0.1)  # no column is favoured
        left, right = mask[:, :-1] == 0, mask[:, 1:] == 0
        assert np.corrcoef(left.ravel(), right.ravel())[0, 1] == pytest.approx(0, abs=5e-3)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_an_update_is_lowered_for_chips_that_are_not_here(platform: str) -> None:
    """As far as XLA's programs can be made without the chip: shapes, types and operators are ones that it takes."""
    import jax

    from bertkit.distributed.world import World
    from bertkit_jax.engine import JaxEngine

    settings = {"devices": 0, "threads": 1, "shapes": 2, "attention": "plain"}
    wanted = dataclasses.replace(job("pretraining", dropout=True, precision="bf16"), settings=settings)
    engine = JaxEngine(wanted, World())
    train(engine, example_batch("pretraining"), "pretraining", 1)
    (sizes,) = engine._learn
    made = engine.plan.make(example_batch("pretraining"), label_counts("pretraining", [example_batch("pretraining")]))
    factor, key = engine._put(np.float32(1)), engine._put(np.zeros(2, np.uint32))
    given = engine.summed, engine.trained, engine.frozen, factor, key
    arrays = engine._share(made.whole), engine._share(made.real)
    assert sizes == made.sizes
    program = engine._learn[sizes].trace(*given, *arrays).lower(lowering_platforms=(platform,))
    assert "stablehlo.dot_general" in program.as_text()
    state = engine.summed, engine.trained, engine.optimizer, engine.scaling
    assert engine._apply.trace(*state, np.float32(0.1)).lower(lowering_platforms=(platform,)).as_text()
    assert MODEL.num_hidden_layers == 2
    assert jax.__version__ == bertkit_jax.version()


def test_cudnn_where_it_cannot_be_is_refused() -> None:
    from bertkit.errors import UserError
    from bertkit_jax.device import kernel

    assert kernel("auto", "cpu", 2) == kernel("auto", "gpu", 4) == kernel("plain", "gpu", 2) == "plain"
    assert kernel("auto", "gpu", 2) == kernel("cudnn", "gpu", 2) == "cudnn"
    for platform, size in (("cpu", 2), ("gpu", 4), ("tpu", 2)):
        with pytest.raises(UserError, match=r"device\.attention = cudnn"):
            kernel("cudnn", platform, size)


def test_profiles_are_chrome_traces_of_what_was_asked_for(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    for name, spans in profiled(bertkit, tmp_path, sample_dir, "jax").items():
        calls = [span for span in spans if span.startswith("PjitFunction")]
        assert len(calls) >= 2, (name, set(spans))
