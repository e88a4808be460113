"""A GPU's weights: the decoder with rows filled up, and the segments' embeddings, give the same loss and gradients as
without; LayerNorm rounds its result alone."""

from __future__ import annotations

import dataclasses

import pytest

from bertkit.conformance.fixtures import example_batch, first_moments, gap, job, train
from bertkit.distributed.world import World
from bertkit.engine.interface import Precision

torch = pytest.importorskip("torch")
from bertkit_cuda.weights import GRAIN, TrainingWeights  # noqa: E402
from bertkit_torch.engine import TorchEngine  # noqa: E402
from bertkit_torch.weights import ComputeWeights, NormsInFloat32  # noqa: E402
from operators import Operators  # noqa: E402
from static_backend import StaticDevice  # noqa: E402


class Unpadded(StaticDevice):
    """The static way on CPU tensors with what GPUs of all vendors have."""

    def compute_weights(
        self, masters: dict[str, torch.Tensor], dtype: torch.dtype, *, training: bool
    ) -> ComputeWeights:
        return NormsInFloat32(masters, dtype)


class Padded(StaticDevice):
    """And with what NVIDIA's have."""

    def compute_weights(
        self, masters: dict[str, torch.Tensor], dtype: torch.dtype, *, training: bool
    ) -> ComputeWeights:
        return TrainingWeights(masters, dtype) if training else NormsInFloat32(masters, dtype)


@pytest.mark.parametrize(("precision", "within"), [("fp32", 1e-7), ("bf16", 1e-3), ("fp16", 1e-4)])
def test_filled_up_rows_change_no_loss_no_gradient_and_no_answer(precision: Precision, within: float) -> None:
    wanted = dataclasses.replace(job("pretraining", "packed", precision=precision), settings={"shapes": 2})
    assert wanted.model.vocab_size % GRAIN
    batch = example_batch("pretraining")
    plain, padded = (TorchEngine(device, wanted, World()) for device in (Unpadded(), Padded()))
    assert gap(plain.predict(batch), padded.predict(batch)) == 0.0
    assert padded.predict(batch)["masked_logits"].shape[1] == wanted.model.vocab_size
    losses = [train(engine, batch, "pretraining", 3) for engine in (plain, padded)]
    assert losses[0] == pytest.approx(losses[1], rel=10 * within)
    assert gap(first_moments(plain), first_moments(padded)) < within


def test_a_vocabulary_of_the_right_size_is_left_as_it_is() -> None:
    table, bias = torch.randn(2 * GRAIN, 8), torch.randn(2 * GRAIN)
    x = torch.randn(5, 8)
    made = TrainingWeights({"table": table, "bias": bias}, torch.float32).decode(x, "table", "bias")
    assert torch.equal(made, ComputeWeights({"table": table, "bias": bias}, torch.float32).decode(x, "table", "bias"))
    more = TrainingWeights({"table": table[:-1], "bias": bias[:-1]}, torch.float32).decode(x, "table", "bias")
    assert more.shape == made.shape
    assert torch.isneginf(more[:, -1]).all()


def test_the_segments_gradient_is_the_same_without_a_chain_of_additions() -> None:
    ids = torch.randint(0, 2, (300,))
    made = []
    for kind in (ComputeWeights, TrainingWeights):
        table = torch.linspace(-1, 1, 16).reshape(2, 8).requires_grad_()
        with Operators() as seen:
            rows = kind({"table": table}, torch.float32).of_few_rows(ids, "table")
            (rows * torch.arange(2400.0).reshape(300, 8) / 1000).sum().backward()
        made.append((rows, table.grad, seen.counts["embedding_dense_backward"]))
    assert torch.equal(made[0][0], made[1][0])
    assert torch.allclose(made[0][1], made[1][1], rtol=1e-5)
    assert (made[0][2], made[1][2]) == (1, 0)


def test_layer_norm_rounds_no_scale_and_no_shift_but_its_result_alone() -> None:
    """Of a scale between two numbers of bf16, half a step is lost where it is rounded first."""
    x = torch.linspace(-3, 3, 512).reshape(4, 128).bfloat16()
    scale, shift = torch.full((128,), 1 + 2.0**-9), torch.full((128,), 2.0**-9)
    masters = {"norm.weight": scale, "norm.bias": shift}
    exact = torch.nn.functional.layer_norm(x.double(), (128,), scale.double(), shift.double(), 1e-12)
    found, rounded = (
        kind(masters, torch.bfloat16).layer_norm(x, "norm", 1e-12) for kind in (TrainingWeights, ComputeWeights)
    )
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())
    assert not torch.equal(rounded, exact.bfloat16())
