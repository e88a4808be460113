"""Losses by a teacher's logits and states (`bertkit.engine.interface.SoftLabels`, `StateTerm`).

Each is over real tokens and examples alone, a sum divided by what the global batch has of them.

Legend: T tokens, N slots, B sequences, G sequences of a group, L tokens of the longest of them, A heads, W width of a
state, C width of all the student's states, D of the teacher's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bertkit.plugin import PROJECTION, StatesLoss, StateTerm

FAR = -1e4  # a score that leaves nothing of a probability, and is finite
SMALLEST = 1e-8  # a norm that a cosine divides by, as `torch.nn.functional.cosine_similarity`
MOST_PAIRS = 1 << 17  # of tokens of a group, padding included; with 48 heads 25 MB a matrix
CACHED_PAIRS = 1 << 19  # of some heads, 2 MB a matrix
FEW_PAIRS = 1 << 10  # that a group may hold however many of them are padding: it costs less than another group
MOST_PADDED = 1.3  # pairs of a group with padding, by those without
Count = int | Tensor


def divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(…, C) logits each -> (…) KL(teacher || student) at the temperature, times its square."""
    found = functional.log_softmax(student.float() / temperature, -1)
    wanted = functional.log_softmax(teacher.float() / temperature, -1)
    return (wanted.exp() * (wanted - found)).sum(-1) * temperature**2


def divergence_of_each(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(…, C) logits of labels that apply each by itself -> (…, C), as `divergence`."""
    ours, theirs = (torch.stack([one.float(), torch.zeros_like(one).float()], -1) for one in (student, teacher))
    return divergence(ours, theirs, temperature)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """(…, C) each -> (…) cosine; of products and sums alone, which every device captures into its graphs."""
    norms = [one.square().sum(-1).clamp_min(SMALLEST**2).rsqrt() for one in (student, teacher)]
    return (student * teacher).sum(-1) * norms[0] * norms[1]


@dataclass(frozen=True)
class Group:
    """Sequences that are compared together."""

    first: int  # of them in the order of `Stretches`
    end: int
    longest: int


@dataclass(frozen=True)
class Stretches:
    """Where each sequence's states stand."""

    first: Tensor  # (B,)
    lengths: Tensor  # (B,)
    groups: tuple[Group, ...]
    counted: Tensor | None = None  # (B,) 0 for spare sequences; None: there are none


def projection(parameters: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Weight and bias of the projection among a model's parameters; () where it has none."""
    return tuple(parameters[name] for name in (f"{PROJECTION}.weight", f"{PROJECTION}.bias") if name in parameters)


def groups(lengths: Sequence[int] | np.ndarray) -> tuple[Group, ...]:
    """Of sequences in an order of falling or equal lengths (B,): so many together that few of their pairs are padding,
    and that all of them fit into little memory."""
    found: list[Group] = []
    start = real = 0
    for number, length in enumerate([max(1, int(each)) for each in lengths]):
        longest = max(1, int(lengths[start]))
        padded = (number + 1 - start) * longest**2
        wasted = padded > FEW_PAIRS and padded > MOST_PADDED * (real + length**2)
        if number > start and (padded > MOST_PAIRS or wasted):
            found.append(Group(start, number, longest))
            start, real = number, 0
        real += length**2
    return (*found, Group(start, len(lengths), max(1, int(lengths[start])))) if len(lengths) else ()


def states_loss(
    spec: StatesLoss,
    states: Tensor,
    teacher: Tensor,
    where: Stretches,
    counts: Mapping[str, Any],
    width: int,
    projection: tuple[Tensor, ...] = (),
) -> Tensor:
    """The scalar to differentiate: states (T, C) or (N, C), each of this width, against (T, D) or (N, D).

    `projection`: weight and bias, of states to the teacher's width where theirs is another.
    """
    compare = _Comparison(spec, width, counts)
    found: Tensor = _GroupByGroup.apply(compare, where, teacher, states, *projection)  # type: ignore[no-untyped-call]
    return found


class _GroupByGroup(torch.autograd.Function):
    """A sum over groups whose gradient is taken at once, so that no more than one group's pairs are ever in memory."""

    @staticmethod
    def forward(
        ctx: Any, compare: _Comparison, where: Stretches, teacher: Tensor, states: Tensor, *more: Tensor
    ) -> Tensor:
        learns = any(ctx.needs_input_grad)
        total = torch.zeros((), device=states.device)
        grads = [torch.zeros_like(one, dtype=torch.float32) for one in (states, *more)] if learns else []
        for places, real, counted in _cut(where):
            given = states.detach().index_select(0, places.view(-1)).float().view(*places.shape, -1)
            wanted = teacher.index_select(0, places.view(-1)).float().view(*places.shape, -1)
            with torch.set_grad_enabled(learns):
                given.requires_grad_(learns)
                value = compare(given, wanted, real, counted, more)
            total += value.detach()
            if learns:
                asked = [one for one in more if one.requires_grad]
                own, *others = torch.autograd.grad(value, (given, *asked), allow_unused=True)
                # Places behind a sequence's end read its first token, with a gradient of 0.
                grads[0].index_add_(0, places.view(-1), own.view(len(places.view(-1)), -1))
                for grad, one in zip(grads[1:], others, strict=False):  # all of the projection is trained, or nothing
                    grad += 0 if one is None else one
        ctx.save_for_backward(*grads)
        ctx.dtypes = [one.dtype for one in (states, *more)]
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        grads = ((grad * upstream).to(dtype) for grad, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True))
        return None, None, None, *grads


def _cut(where: Stretches) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(places (G, L), which are real (G, L), 1 for each sequence that counts (G,)) of each group."""
    for group in where.groups:
        first, lengths = where.first[group.first : group.end, None], where.lengths[group.first : group.end, None]
        columns = torch.arange(group.longest, device=first.device)
        real = columns < lengths
        if where.counted is None:
            counted = torch.ones(len(first), device=first.device)
        else:
            counted = where.counted[group.first : group.end]
        yield (first + columns).where(real, first), real, counted


@dataclass(frozen=True)
class _Comparison:
    """Of one group's states, (G, L, C) and (G, L, D), float32."""

    spec: StatesLoss
    width: int
    counts: Mapping[str, Count]

    def __call__(
        self, student: Tensor, teacher: Tensor, real: Tensor, counted: Tensor, projection: tuple[Tensor, ...]
    ) -> Tensor:
        total = torch.zeros((), device=student.device)
        for term in self.spec.terms:
            ours = [student[..., n * self.width : (n + 1) * self.width] for n in term.student]
            theirs = [teacher[..., n * self.spec.width : (n + 1) * self.spec.width] for n in term.teacher]
            total = total + term.weight * self._term(term, ours, theirs, real, counted, projection)
        return total

    def _term(
        self,
        term: StateTerm,
        ours: list[Tensor],
        theirs: list[Tensor],
        real: Tensor,
        counted: Tensor,
        projection: tuple[Tensor, ...],
    ) -> Tensor:
        rows = real * counted[:, None]  # (G, L)
        if term.form in ("mse", "cosine"):
            found, wanted = ours[0], theirs[0]
            found = functional.linear(found, *projection) if projection else found
            each = (found - wanted).square().mean(-1) if term.form == "mse" else 1 - cosine(found, wanted)
            return (each * rows).sum() / self.counts["tokens"]
        if term.form == "attention_mse":
            found, wanted = (
                scores(by_head(one[0], term.heads), by_head(one[-1], term.heads)) for one in (ours, theirs)
            )
            pairs = rows[:, None, :, None] * real[:, None, None]
            return ((found - wanted).square() * pairs).sum() / (term.heads * self.counts["pairs"])
        total: Tensor = _HeadsDivergence.apply(ours[0], ours[-1], theirs[0], theirs[-1], real, rows, term.heads)  # type: ignore[no-untyped-call]
        return total / (term.heads * self.counts["tokens"])


def by_head(states: Tensor, heads: int) -> Tensor:
    """(G, L, W) -> (G, A, L, W / A)."""
    return states.view(*states.shape[:2], heads, -1).transpose(1, 2)


def scores(query: Tensor, key: Tensor) -> Tensor:
    """(G, A, L, V) each -> (G, A, L, L): products by the root of V, a head's width."""
    return query / math.sqrt(query.shape[-1]) @ key.transpose(2, 3)


class _HeadsDivergence(torch.autograd.Function):
    """The sum over heads and rows of KL(teacher || student), of each token's probabilities over its sequence.

    The gradient is taken with the value, where the pairs of a few heads are still in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, teacher_query: Tensor, teacher_key: Tensor, real: Tensor, rows: Tensor,
        heads: int,
    ) -> Tensor:  # fmt: skip
        total = torch.zeros((), device=query.device)
        ours, theirs = ([by_head(one, heads) for one in pair] for pair in ((query, key), (teacher_query, teacher_key)))
        grads = [torch.empty_like(one) for one in (query, key)] if any(ctx.needs_input_grad) else []
        of_heads = [by_head(one, heads) for one in grads]
        away = ~real[:, None, None]
        for part in _parts(heads, real):
            found, wanted = (
                functional.log_softmax(scores(q[:, part], k[:, part]).masked_fill_(away, FAR), -1)
                for q, k in (ours, theirs)
            )
            shares = wanted.exp()
            total += (wanted.sub_(found).mul_(shares).sum(-1) * rows[:, None]).sum()
            if grads:
                slopes = found.exp_().sub_(shares).mul_(rows[:, None, :, None])
                of_heads[0][:, part] = slopes @ ours[1][:, part]
                of_heads[1][:, part] = slopes.transpose(2, 3) @ ours[0][:, part]
        for grad in grads:
            grad /= math.sqrt(query.shape[-1] // heads)
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        return (*(grad * upstream for grad in ctx.saved_tensors), None, None, None, None, None)


def _parts(heads: int, real: Tensor) -> Iterator[slice]:
    """Heads at a time: on the host so many that their pairs stay in a core's cache, elsewhere all."""
    pairs = len(real) * real.shape[1] ** 2
    at_once = max(1, CACHED_PAIRS // pairs) if real.device.type == "cpu" else heads
    return (slice(first, first + at_once) for first in range(0, heads, at_once))
