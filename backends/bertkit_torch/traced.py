"""A trained model as TorchScript: the model's own functions, traced over padded rows of any number and length.

Legend: B sequences, S length that they are padded to, N slots (B * S), H hidden, W slots that ask.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bertkit.plugin import PER_TOKEN, Arrays, ExportedModel, PaddedModel
from bertkit_torch.bert import encoder_layer, outputs
from bertkit_torch.dropout import Dropout
from bertkit_torch.seen import Seen
from bertkit_torch.weights import NormsInFloat32

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class Read(Mapping[str, Tensor]):
    """The masters, and which of them were read as they are."""

    def __init__(self, weights: Mapping[str, np.ndarray]) -> None:
        self.weights = {name: torch.tensor(values, dtype=torch.float32) for name, values in weights.items()}
        self.read: dict[str, Tensor] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.read.setdefault(name, self.weights[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)


class FixedWeights(NormsInFloat32):
    """Cast and joined once; these tensors, not the masters behind them, are the module's."""

    def __init__(self, weights: Mapping[str, np.ndarray], dtype: torch.dtype) -> None:
        self.source = Read(weights)
        super().__init__(self.source, dtype)

    def cast(self, *names: str) -> Tensor:
        if names not in self._ready:
            parts = [self.source.weights[name].to(self.dtype) for name in names]
            self._ready[names] = torch.cat(parts)
        return self._ready[names]

    def tensors(self) -> dict[str, Tensor]:
        """All that was read so far, by names that a module's buffers may have."""
        joined = {"__".join(names): tensor for names, tensor in self._ready.items()}
        both = {f"fp32.{name}": tensor for name, tensor in self.source.read.items()} | joined
        return {name.replace(".", "_"): tensor for name, tensor in both.items()}


class PaddedRows:
    """Attention of B rows; slots see those of their row that are no padding."""

    whole = False

    def __init__(self, mask: Tensor, rows: int, heads: int) -> None:
        """`mask`: (B, 1, 1, S), added to scores."""
        self.mask, self.rows, self.heads = mask, rows, heads

    def __call__(self, parts: tuple[Tensor, ...], drop: Dropout, rate: float, dtype: torch.dtype) -> Tensor:
        each = parts[0].chunk(3, -1) if len(parts) == 1 else (parts[0], *parts[1].chunk(2, -1))
        query, key, value = (part.reshape(self.rows, -1, self.heads, part.shape[-1] // self.heads) for part in each)
        found = functional.scaled_dot_product_attention(
            query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=self.mask
        )
        return found.transpose(1, 2).reshape(-1, each[0].shape[-1])


class Traced(nn.Module):
    """An encoder with its head over (B, S) ids; its tensors are buffers, so that they move with it."""

    def __init__(self, model: ExportedModel) -> None:
        super().__init__()
        self.model = model
        self.weights = FixedWeights(model.weights, DTYPES[model.precision])

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, ...]:
        # Places are counted from tensors that are there: a trace would keep the device that a new one was made on.
        config, head, dtype = self.model.config, self.model.head, self.weights.dtype
        rows, length = input_ids.shape[0], input_ids.shape[1]
        mask = (attention_mask == 0)[:, None, None, :].to(dtype) * torch.finfo(dtype).min
        attention = PaddedRows(mask, rows, config.num_attention_heads)
        numbers = torch.ones_like(input_ids[:, 0]).cumsum(0) - 1
        first = numbers * length
        seen = Seen(
            input_ids=input_ids.reshape(-1),
            token_type_ids=token_type_ids.reshape(-1),
            position_ids=(torch.ones_like(input_ids).cumsum(1) - 1).reshape(-1),
            attention=attention,
            last=attention,
            asking=first if head.pooled else None,
            # what was asked for is all that there is behind the last layer
            first=numbers,
            masked=first[:0],
            tokens=None,
        )
        layer = functools.partial(encoder_layer, self.weights)
        found = outputs(self.weights, config, head, seen, Dropout(), layer)
        if head.kind in PER_TOKEN:
            return tuple(values.reshape(rows, length, *values.shape[1:]) for values in found.values())
        return tuple(found.values())


def write(model: ExportedModel, path: Path) -> None:
    """The module takes INPUTS (B, S), int64 or int32, and gives logits, or start and end logits, as a tuple."""
    module = Traced(model).eval()
    ids = torch.ones((2, 3), dtype=torch.int64)
    with torch.no_grad():
        module(ids, ids, torch.zeros_like(ids))  # reads what there is to be read
        for name, tensor in module.weights.tensors().items():
            module.register_buffer(name, tensor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit itself; --format says that it is legacy
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]
                module, (ids, ids, torch.zeros_like(ids)), check_trace=False
            )
            torch.jit.save(traced, str(path))


def load(path: Path) -> PaddedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loaded = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return functools.partial(_computed, loaded)


def _computed(loaded: torch.jit.ScriptModule, inputs: Mapping[str, np.ndarray]) -> Arrays:
    with torch.no_grad():
        found = loaded(*(torch.tensor(inputs[name], dtype=torch.int64) for name in INPUTS))
    names = ("start_logits", "end_logits") if len(found) == 2 else ("logits",)
    return {name: values.numpy() for name, values in zip(names, found, strict=True)}
