"""Which attention kernel is fastest for a job's sizes, by trying each on this card.

Legend: N slots, A heads, D head size, R rows, S width.
"""

from __future__ import annotations

import logging
import time

import torch

from bertkit.plugin import Job, Limits, UserError
from bertkit_cuda.kernels import STRETCHES, Wanted, candidates, fastest
from bertkit_torch.dropout import DeviceDropout
from bertkit_torch.row_attention import ROWS as ROWS
from bertkit_torch.row_attention import InRows, InStretches, allowed, stretches_by_mask
from bertkit_torch.seen import Attention

UNKNOWN = Limits(sequences=32, longest=128, answers=32)  # where a job does not say
SECONDS = 0.05  # for each kernel
logger = logging.getLogger("bertkit.engine")
NEAR = 5e-2  # how far half precision may lie from fp32, of outputs of about 1: as the checks have it


def choose(job: Job, dtype: torch.dtype, where: torch.device) -> tuple[str, str]:
    """(kernel, why) for a job whose attention computes in `dtype`. Raises UserError where what it asks cannot be."""
    heads, size = job.model.num_attention_heads, job.model.hidden_size // job.model.num_attention_heads
    capability = (0, 0) if torch.version.hip else torch.cuda.get_device_capability(where)
    asked = str(job.settings.get("attention", "auto"))
    names = candidates(Wanted(asked, job.layout, dtype != torch.float32, capability, size))
    if torch.version.hip:
        names = proven(names, asked, torch.zeros(heads, size, dtype=dtype, device=where))
    if len(names) == 1:
        return fastest({names[0]: 0.0})
    limits = job.limits or UNKNOWN
    rows = max(1, limits.sequences // 2)  # about what short sequences are packed into
    joined = torch.randn(rows * limits.longest, 3 * heads * size, dtype=dtype, device=where, requires_grad=True)
    rate = job.model.attention_probs_dropout_prob
    return fastest({name: seconds(attention(name, rows, limits.longest, heads, where), joined, rate) for name in names})


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


def attention(name: str, rows: int, width: int, heads: int, where: torch.device) -> Attention:
    """The kernel on full rows of one sequence each."""
    if name in STRETCHES:
        bounds = torch.arange(0, (rows + 1) * width, width, dtype=torch.int32, device=where)
        return InStretches(bounds, width, heads, STRETCHES[name])
    return InRows(allowed(torch.ones(rows * width, device=where), rows), heads, ROWS[name])


def seconds(kernel: Attention, joined: torch.Tensor, rate: float) -> float:
    """Of one forward and backward."""

    def once() -> None:
        found = kernel((joined,), DeviceDropout(), rate, joined.dtype)
        torch.autograd.grad(found.sum(), joined)
        torch.cuda.synchronize()

    once()  # loads the kernel
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < SECONDS:
        once()
        count += 1
    return (time.perf_counter() - start) / count
