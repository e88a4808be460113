"""A small BERT in the ops that a trainer uses, and its training on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

WIDTH, HEADS, WORDS, CLASSES = 16, 2, 50, 3


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.joined, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, rate: float) -> torch.Tensor:
        rows, length, _ = x.shape
        q, k, v = (y.view(rows, length, HEADS, -1).transpose(1, 2) for y in self.joined(x).chunk(3, -1))
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)
        x = self.first(x + F.dropout(self.out(seen.transpose(1, 2).reshape(x.shape)), rate))
        return self.second(x + F.dropout(self.down(F.gelu(self.up(x))), rate))


class Bert(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.pooler, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor, rate: float) -> torch.Tensor:
        x = F.embedding(ids, self.words.weight)
        for layer in self.layers:
            x = layer(x, mask[:, None, None], rate)
        starts = torch.arange(ids.shape[0], device=ids.device) * ids.shape[1]
        first = torch.index_select(x.reshape(-1, WIDTH), 0, starts)
        logits = self.head(torch.tanh(self.pooler(first)))
        return F.cross_entropy(logits.float(), labels)


@dataclass
class Training:
    """How to train; every field as a trainer would set it."""

    device: str
    autocast: bool = False
    compiled: bool = False
    rate: float = 0.0
    lengths: Sequence[int] = (8,)
    steps: int = 4
    after: Callable[[], Any] = lambda: None  # what follows backward and the optimizer's step


def train(how: Training) -> tuple[list[float], dict[str, Any]]:
    """The losses, fetched at the end, and the weights as NumPy arrays."""
    torch.manual_seed(1)
    model = Bert().to(how.device)
    run: Any = torch.compile(model, backend="hpu_backend", dynamic=False) if how.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    data, losses = torch.Generator().manual_seed(2), []
    for step in range(how.steps):
        length = how.lengths[step % len(how.lengths)]
        ids = torch.randint(0, WORDS, (4, length), generator=data).to(how.device)
        mask = (torch.arange(length) < length - 2).expand(4, length).to(how.device)
        labels = torch.randint(0, CLASSES, (4,), generator=data).to(how.device)
        with torch.autocast(how.device, dtype=torch.bfloat16, enabled=how.autocast):
            loss = run(ids, mask, labels, how.rate)
        loss.backward()
        how.after()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        how.after()
        losses.append(loss.detach())
    return [float(loss) for loss in losses], {name: v.cpu().numpy() for name, v in model.state_dict().items()}
