"""Which attention kernel is fastest for a job's sizes, by trying each on this card.

Legend: N slots, A heads, D head size, R rows, S width.
"""

from __future__ import annotations

import time

import torch

from bertkit.plugin import BatchLimits, Job
from bertkit_cuda.kernels import STRETCHES, Wanted, candidates, fastest
from bertkit_torch.dropout import DeviceDropout
from bertkit_torch.row_attention import InRows, InStretches, allowed, plain, sdpa
from bertkit_torch.seen import Attention

UNKNOWN = BatchLimits(sequences=32, longest=128)  # where a job does not say
SECONDS = 0.05  # for each kernel
ROWS = {"sdpa": sdpa, "plain": plain}


def choose(job: Job, dtype: torch.dtype, where: torch.device) -> tuple[str, str]:
    """(kernel, why) for a job whose attention computes in `dtype`. Raises UserError where what it asks cannot be."""
    heads, size = job.model.num_attention_heads, job.model.hidden_size // job.model.num_attention_heads
    capability = (0, 0) if torch.version.hip else torch.cuda.get_device_capability(where)
    asked = str(job.settings.get("attention", "auto"))
    names = candidates(Wanted(asked, job.layout, dtype != torch.float32, capability, size))
    if len(names) == 1:
        return fastest({names[0]: 0.0})
    kinds = job.limits.training or job.limits.answers if job.limits else ()
    limits = max(kinds, key=lambda each: each.most_tokens, default=UNKNOWN)
    rows = max(1, limits.sequences // 2)  # about what short sequences are packed into
    joined = torch.randn(rows * limits.longest, 3 * heads * size, dtype=dtype, device=where, requires_grad=True)
    rate = job.model.attention_probs_dropout_prob
    return fastest({name: seconds(attention(name, rows, limits.longest, heads, where), joined, rate) for name in names})


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
