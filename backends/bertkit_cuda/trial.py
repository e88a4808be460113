"""Which attention kernel is fastest for a job's sizes, by trying each on this GPU.

Legend: N slots, A heads, D head size, R rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from bertkit.plugin import BatchLimits, Job, Limits, UserError, static_batch, static_sizes
from bertkit_cuda.kernels import FLAT, STRETCHES, fastest
from bertkit_torch.dropout import DeviceDropout
from bertkit_torch.row_attention import ROWS, InRows, InStretches, allowed, stretches_by_mask
from bertkit_torch.seen import Attention

UNKNOWN = BatchLimits(sequences=32, longest=128)  # where a job does not say
SECONDS = 0.05  # for each kernel
NEAR = 5e-2  # how far half precision may lie from fp32, of outputs of about 1: as the checks have it
logger = logging.getLogger("bertkit.engine")
Capture = Callable[[Callable[[], None]], Callable[[], None]]


def choose(
    names: Sequence[str], job: Job, dtype: torch.dtype, where: torch.device, capture: Capture
) -> tuple[str, str]:
    """(kernel, why) of `names`, for a job whose attention computes in `dtype`.

    Timed as training runs it: `capture` makes a graph of it, where the device records such.
    """
    if len(names) == 1:
        return fastest({names[0]: 0.0})
    lengths = usual_lengths(job.limits)
    heads, rate = job.model.num_attention_heads, job.model.attention_probs_dropout_prob
    spent: dict[str, float] = {}
    for name in names:
        kernel, slots = attention(name, lengths, heads, where)
        joined = torch.randn(slots, 3 * job.model.hidden_size, dtype=dtype, device=where, requires_grad=True)
        spent[name] = seconds(kernel, joined, rate, capture)
    return fastest(spent)


def proven(names: tuple[str, ...], asked: str, like: torch.Tensor) -> tuple[str, ...]:
    """Of `names`, those whose kernel runs where `like` (A, D) is and keeps two sequences apart, in its dtype.

    Raises UserError where none is left.
    """
    parts = [torch.randn(24, *like.shape, device=like.device) for _ in range(3)]
    bounds = torch.tensor([0, 8, 24], dtype=torch.int32, device=like.device)
    wanted = stretches_by_mask(parts[0], parts[1], parts[2], bounds, 16, 0.0)
    query, key, value = (part.to(like.dtype).requires_grad_() for part in parts)
    failed = {}
    for name in (one for one in names if one in STRETCHES):
        try:
            found = STRETCHES[name](query, key, value, bounds, 16, 0.0)
            torch.autograd.grad(found.sum(), query)
            apart = float((found.detach().float() - wanted).abs().max())
            if not apart < NEAR:
                failed[name] = f"is off by {apart:.1e}"
        except RuntimeError as error:
            failed[name] = f"does not run: {str(error).strip().splitlines()[0]}"
    left = tuple(name for name in names if name not in failed)
    if not left:
        why = "; ".join(f"{name} {reason}" for name, reason in failed.items())
        cure = "device.attention=auto" if asked != "auto" else "model.layout=packed"
        raise UserError(f"no attention kernel for unpadded batches is left on this device: {why}", f"use --set {cure}")
    for name, reason in failed.items():
        logger.info("attention: %s is left out: it %s", name, reason)
    return left


def usual_lengths(limits: Limits | None) -> np.ndarray:
    """(B,) of a batch in the middle, of the kind with the most tokens; half of the longest where none was drawn."""
    kinds = (limits.training or limits.answers) if limits else ()
    most = max(kinds, key=lambda each: each.most_tokens, default=UNKNOWN)
    if not most.drawn:
        return np.full(most.sequences, max(1, most.longest // 2))
    by_tokens = sorted(most.drawn, key=lambda batch: int(batch.lengths.sum()))
    middle: np.ndarray = by_tokens[len(by_tokens) // 2].lengths
    return middle


def attention(name: str, lengths: np.ndarray, heads: int, where: torch.device) -> tuple[Attention, int]:
    """(the kernel on sequences of these lengths, slots)."""
    nothing = np.zeros(int(lengths.sum()), np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    batch = {"input_ids": nothing, "token_type_ids": nothing, "cu_seqlens": starts}
    limits = BatchLimits(len(lengths), int(lengths.max()), tokens=int(lengths.sum()))
    found = static_sizes([limits], len(lengths), flat=name in FLAT).fit(lengths)
    if found is None:
        raise AssertionError("a batch has a size within its own limits")
    made = static_batch(batch, "encoder", found)
    if name in STRETCHES:
        bounds = torch.from_numpy(made.whole["bounds"]).to(where, torch.int32)
        return InStretches(bounds, found.longest, heads, STRETCHES[name]), found.slots
    segments = torch.from_numpy(made.whole["segments"]).to(where)
    return InRows(allowed(segments, found.rows), heads, ROWS[name]), found.slots


def seconds(kernel: Attention, joined: torch.Tensor, rate: float, capture: Capture) -> float:
    """Of one forward and backward."""

    def once() -> None:
        found = kernel((joined,), DeviceDropout(), rate, joined.dtype)
        torch.autograd.grad(found.sum(), joined)

    once()  # loads the kernel
    replay = capture(once)
    torch.cuda.synchronize()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        replay()
        torch.cuda.synchronize()
        count += 1
    return (time.perf_counter() - start) / count
