"""The CPU's masked-word loss, whose gradient takes the place of the logits, against torch's own."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from bertkit_cpu.masked_words import ROWS, in_place  # noqa: E402
from bertkit_torch.losses import masked_words  # noqa: E402


@pytest.mark.parametrize("rows", [0, 1, ROWS - 1, ROWS, 2 * ROWS + 5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-7)])
def test_loss_and_gradient_are_torchs(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    stream = torch.Generator().manual_seed(rows)
    logits = (3 * torch.randn(rows + 3, 50, generator=stream)).to(dtype)  # spare ones behind
    labels = torch.randint(50, (rows,), generator=stream)
    asked, spoilt = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    wanted = masked_words(asked, labels, 2 * rows + 1)
    found = in_place(spoilt * 1, labels, 2 * rows + 1)
    assert found.dtype == torch.float32
    assert float(found.detach()) == pytest.approx(float(wanted.detach()), rel=1e-6)
    (3 * wanted).backward()
    (3 * found).backward()
    assert not spoilt.grad[rows:].any()
    assert float((asked.grad - spoilt.grad).abs().max()) <= tolerance * float(asked.grad.abs().max())


def test_a_word_that_float32_gives_no_chance_is_counted_in_full() -> None:
    logits = torch.zeros(2, 5)
    logits[0, 3] = 200.0
    logits.requires_grad_()
    found = in_place(logits * 1, torch.tensor([1, 2]), 2)
    assert float(found.detach()) == pytest.approx((200.0 + float(torch.log(torch.tensor(5.0)))) / 2)
    found.backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].tolist() == pytest.approx([0, -0.5, 0, 0.5, 0])
