"""Gradients in tensors of their own and in one flat buffer: the same to whoever clips, scales, keeps or clears them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bertkit_torch.gradients import FlatGradients, Gradients, norms  # noqa: E402

SHAPES = ((3, 4), (5,), (1,), (2, 2, 2))
KINDS = [Gradients, FlatGradients]
Do = Callable[[Gradients], object]


def parameters() -> dict[str, nn.Parameter]:
    stream = torch.Generator().manual_seed(1)
    return {f"p{n}": nn.Parameter(torch.randn(shape, generator=stream)) for n, shape in enumerate(SHAPES)}


def backward(made: dict[str, nn.Parameter], scale: float = 1.0, but: str = "") -> None:
    """Adds the gradient 2 * scale * p to each parameter but one."""
    sum(scale * (p * p).sum() for name, p in made.items() if name != but).backward()  # type: ignore[union-attr]


def after(do: Do, kind: type[Gradients], *scales: float) -> list[Any]:
    made = parameters()
    held = kind(made)
    for scale in scales:
        backward(made, scale)
    do(held)
    return [gradient.clone() for gradient in held.complete()]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
@pytest.mark.parametrize("most", [0.0, 0.5, 1.0, 1e9])
def test_clipping_is_the_same_and_tells_the_norm_before_it(most: float, scale: float) -> None:
    said: list[float] = []
    loose, flat = (after(lambda held: said.append(float(held.clip(most))), kind, scale) for kind in KINDS)
    whole = torch.cat([(2 * scale * p.detach()).reshape(-1) for p in parameters().values()])
    norm = float(whole.norm())
    assert said == pytest.approx([norm, norm], rel=1e-6)
    factor = min(1.0, most / norm) if most else 1.0
    for found in (loose, flat):
        torch.testing.assert_close(
            torch.cat([part.reshape(-1) for part in found]), whole * factor, rtol=1e-4, atol=1e-9
        )
    for one, other in zip(loose, flat, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_no_one_can_be_clipped(kind: type[Gradients]) -> None:
    held = kind(parameters())
    held.complete()
    assert float(held.clip(1.0)) == 0.0
    assert all(not gradient.any() for gradient in held.complete())


@pytest.mark.parametrize("kind", KINDS)
def test_they_add_up_over_micro_batches_and_are_cleared(kind: type[Gradients]) -> None:
    def clear(held: Gradients) -> None:
        held.clear()

    summed, once = after(lambda held: None, kind, 1.0, 2.0), after(lambda held: None, kind, 3.0)
    for one, other in zip(summed, once, strict=True):
        torch.testing.assert_close(one, other)
    assert all(not gradient.any() for gradient in after(clear, kind, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_all_are_multiplied(kind: type[Gradients]) -> None:
    doubled = after(lambda held: held.multiply(torch.tensor(2.0)), kind, 1.0)
    for one, other in zip(doubled, after(lambda held: None, kind, 2.0), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("before", [(), (1.0,), (1.0, 0.5)])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_added_meanwhile_is_taken_away_again(kind: type[Gradients], before: tuple[float, ...]) -> None:
    made = parameters()
    held = kind(made)
    for scale in before:
        backward(made, scale)
    with held.kept():
        backward(made, 7.0)
        assert all(gradient.any() for gradient in held.complete())
    for found, wanted in zip(held.complete(), after(lambda held: None, kind, *before), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_that_no_loss_reached_has_zeros(kind: type[Gradients]) -> None:
    made = parameters()
    held = kind(made)
    backward(made, but="p1")
    found = held.complete()
    assert len(found) == len(made)
    assert not found[1].any()
    assert norms(found).tolist() == pytest.approx([float(p.grad.norm()) for p in made.values()])  # type: ignore[union-attr]


def test_the_flat_buffer_is_the_gradients_and_stays_where_it_is() -> None:
    """Captured graphs write there, and the ranks sum it as a whole."""
    made = parameters()
    held = FlatGradients(made)
    place = held.flat.data_ptr()
    for _ in range(2):
        backward(made)
        held.clip(1.0)
        with held.kept():
            backward(made)
        joined = torch.cat([p.grad.reshape(-1) for p in made.values()])  # type: ignore[union-attr]
        assert torch.equal(held.flat, joined)
        held.flat.mul_(3)
        assert torch.equal(made["p0"].grad, 3 * joined[:12].view(3, 4))
        held.clear()
    assert held.flat.data_ptr() == place
    assert held.flat.dtype == torch.float32
    assert Gradients(made).flat is None
