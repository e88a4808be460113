"""From start and end logits to answers: the n best spans of each question over all its windows.

A span is allowed where both ends are pieces of the paragraph, the start has its maximum context in this window, and
it is not too long. Its text is cut out of the paragraph by character offsets, so it stands there letter for letter.

Legend: N windows, T tokens of them, Q questions.
Source: Devlin et al. 2018, arXiv:1810.04805, section 4.2-4.3 (v2.0: the score of [CLS] says "no answer").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bertkit.data.features import Features
from bertkit.data.tasks.squad.reader import Paragraph
from bertkit.data.tasks.task import AnswerRules


@dataclass(frozen=True)
class Span:
    """A possible answer. The null answer has the text ""."""

    text: str
    start: int  # characters of the paragraph
    end: int
    start_logit: float
    end_logit: float
    probability: float = 0.0  # among the n best

    @property
    def score(self) -> float:
        return self.start_logit + self.end_logit


@dataclass(frozen=True)
class Found:
    """What the model answers to one question."""

    id: str
    best: str  # "" : no answer
    n_best: tuple[Span, ...]  # the best first
    null_odds: float | None  # v2.0: score of no answer less that of the best span; None without a null answer


def decode(
    paragraphs: Iterable[Paragraph],
    features: Features,
    outputs: Mapping[str, np.ndarray],
    rules: AnswerRules,
    null_answers: bool,
) -> list[Found]:
    """The answers to the paragraphs' questions, in their order. `outputs`: start_logits and end_logits (T,)."""
    owners = features.notes["question"]
    bounds = np.searchsorted(owners, np.arange(int(features.notes["questions"][0]) + 1))
    found: list[Found] = []
    for paragraph in paragraphs:
        for question in paragraph.questions:
            own = range(bounds[len(found)], bounds[len(found) + 1])
            spans = [
                span for window in own for span in window_spans(paragraph.context, features, outputs, window, rules)
            ]
            null = null_span(features, outputs, own) if null_answers else None
            found.append(choose(question.id, spans, null, rules))
    return found


def window_spans(
    context: str, features: Features, outputs: Mapping[str, np.ndarray], window: int, rules: AnswerRules
) -> list[Span]:
    """The allowed spans between the window's n likeliest starts and ends, best first, n at the most."""
    tokens = slice(features.cu_seqlens[window], features.cu_seqlens[window + 1])
    starts, ends = outputs["start_logits"][tokens], outputs["end_logits"][tokens]
    from_, to = features.notes["start"][tokens], features.notes["end"][tokens]
    first, last = _likeliest(starts, rules.n_best), _likeliest(ends, rules.n_best)
    first = first[(from_[first] >= 0) & features.notes["max_context"][tokens][first]]
    last = last[from_[last] >= 0]
    length = last[None, :] - first[:, None] + 1
    rows, columns = np.nonzero((length > 0) & (length <= rules.longest))
    rows, columns = first[rows], last[columns]
    scores = starts[rows].astype(np.float64) + ends[columns]
    order = np.argsort(-scores, kind="stable")[: rules.n_best]
    return [
        Span(context[from_[a] : to[b]], int(from_[a]), int(to[b]), float(starts[a]), float(ends[b]))
        for a, b in zip(rows[order], columns[order], strict=True)
    ]


def null_span(features: Features, outputs: Mapping[str, np.ndarray], windows: range) -> Span:
    """No answer, as the window says that is least sure of it: the logits of its [CLS]."""
    places = features.cu_seqlens[windows.start : windows.stop]
    starts, ends = outputs["start_logits"][places], outputs["end_logits"][places]
    least = int(np.argmin(starts.astype(np.float64) + ends))
    return Span("", 0, 0, float(starts[least]), float(ends[least]))


def choose(name: str, spans: Sequence[Span], null: Span | None, rules: AnswerRules) -> Found:
    """One question's answer of its windows' spans: each text once, with probabilities among the n best."""
    texts: set[str] = set()
    kept: list[Span] = []
    for span in sorted([*spans, *([null] if null else [])], key=lambda span: -span.score):
        if span.text not in texts and len(kept) < rules.n_best:
            texts.add(span.text)
            kept.append(span)
    if null and "" not in texts:
        kept.append(null)
    if not kept:  # nothing was allowed, as in a paragraph without a word
        kept = [Span("", 0, 0, 0.0, 0.0)]
    best = next((span for span in kept if span.text), None)
    odds = None if null is None else null.score - (best.score if best else 0.0)
    silent = best is None or (odds is not None and odds > rules.null_threshold)
    said = "" if best is None or silent else best.text
    return Found(name, said, tuple(_with_probabilities(kept)), odds)


def _with_probabilities(spans: Sequence[Span]) -> list[Span]:
    scores = np.array([span.score for span in spans])
    weights = np.exp(scores - scores.max())
    shares = weights / weights.sum()
    return [
        Span(span.text, span.start, span.end, span.start_logit, span.end_logit, float(share))
        for span, share in zip(spans, shares, strict=True)
    ]


def _likeliest(logits: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest logits, largest first; of equals the earlier."""
    if len(logits) > count:
        bound = np.partition(logits, len(logits) - count)[len(logits) - count]
        places = np.flatnonzero(logits >= bound)
    else:
        places = np.arange(len(logits))
    order: np.ndarray = places[np.argsort(-logits[places], kind="stable")][:count]
    return order


def as_json(found: Found) -> list[dict[str, Any]]:
    """The n best as `nbest_predictions.json` has them."""
    return [
        {
            "text": span.text,
            "probability": span.probability,
            "start_logit": span.start_logit,
            "end_logit": span.end_logit,
        }
        for span in found.n_best
    ]
