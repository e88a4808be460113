"""From texts to token ids, and from logits to answers, as bertkit itself does it; with numpy and tokenizers alone.

This file is copied into the exported repository, beside `model.py`, and imports nothing of bertkit.

Legend: N windows of a question, P pieces of a paragraph, T tokens, C outputs of the head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Rules = Mapping[str, Any]  # of rules.json


def _none() -> np.ndarray:
    return np.empty(0, np.int64)


@dataclass
class Tokens:
    """One sequence for the model, and what an answer is made of."""

    ids: list[int]
    types: list[int]
    logits: list[np.ndarray] = field(default_factory=list)  # of each output; of a span (T,), else (C,)
    # Of a window's tokens, (T,) each: the paragraph's character where a piece starts, -1: it is no piece of it; the
    # character behind its last; whether the piece has its maximum context in this window.
    starts: np.ndarray = field(default_factory=_none)
    ends: np.ndarray = field(default_factory=_none)
    owned: np.ndarray = field(default_factory=_none)


def encode_texts(tokenizer: Any, rules: Rules, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Tokens]:
    """A sequence for each text, or pair of texts; the longer is cut first."""
    tokenizer.enable_truncation(rules["seq_length"], strategy="longest_first")
    inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
    return [Tokens(list(one.ids), list(one.type_ids)) for one in tokenizer.encode_batch(inputs)]


def encode_question(tokenizer: Any, rules: Rules, question: str, context: str) -> list[Tokens]:
    """The N windows over the context. Raises ValueError where the question leaves no room."""
    tokenizer.no_truncation()
    query = tokenizer.encode(question, add_special_tokens=False).ids[: rules["query_length"]]
    pieces = tokenizer.encode(context, add_special_tokens=False)
    before = [tokenizer.encode("").ids[0], *query, tokenizer.encode("").ids[-1]]  # [CLS] question [SEP]
    room = rules["seq_length"] - len(before) - 1
    if room < 1:
        raise ValueError(f"the question has {len(query)} tokens, which leaves no room in {rules['seq_length']}")
    spans = windows(len(pieces.ids), room, rules["doc_stride"])
    owner = max_context(spans, len(pieces.ids))
    offsets = np.array(pieces.offsets, np.int64).reshape(-1, 2)
    found = []
    for window, (start, end) in enumerate(spans):
        around = (len(before), 1)
        found.append(
            Tokens(
                ids=[*before, *pieces.ids[start:end], before[-1]],
                types=[0] * len(before) + [1] * (end - start + 1),
                starts=np.pad(offsets[start:end, 0], around, constant_values=-1),
                ends=np.pad(offsets[start:end, 1], around, constant_values=-1),
                owned=np.pad(owner[start:end] == window, around),
            )
        )
    return found


def windows(pieces: int, room: int, stride: int) -> list[tuple[int, int]]:
    """(start, end) of the windows over so many pieces; the last one ends with the paragraph."""
    found, start = [], 0
    while True:
        end = min(start + room, pieces)
        found.append((start, end))
        if end == pieces:
            return found
        start += min(end - start, stride)


def max_context(spans: Sequence[tuple[int, int]], pieces: int) -> np.ndarray:
    """(P,) the window in which the smaller distance of a piece to the window's two ends is largest."""
    best, owner = np.full(pieces, -np.inf), np.zeros(pieces, np.int64)
    for window, (start, end) in enumerate(spans):
        places = np.arange(start, end)
        scores = np.minimum(places - start, end - 1 - places) + 0.01 * (end - start)
        better = scores > best[start:end]
        best[start:end][better] = scores[better]
        owner[start:end][better] = window
    return owner


def batches(sequences: Sequence[Tokens], most: int) -> list[list[Tokens]]:
    """Of like length, so that little is padded."""
    by_length = sorted(sequences, key=lambda one: len(one.ids))
    return [by_length[start : start + most] for start in range(0, len(by_length), most)]


def padded(sequences: Sequence[Tokens]) -> list[np.ndarray]:
    """Ids, mask and segments, (B, S) each; all are 0 at padding, which no token sees."""
    longest = max(len(one.ids) for one in sequences)
    rows = [[(one.ids, [1] * len(one.ids), one.types)[kind] for one in sequences] for kind in range(3)]
    return [np.array([row + [0] * (longest - len(row)) for row in each], np.int64) for each in rows]


def probabilities(several: bool, logits: np.ndarray) -> np.ndarray:
    """(C,) of classes that exclude one another; `several`: of each label by itself."""
    values = logits.astype(np.float64)
    if several:
        return np.asarray((1 + np.tanh(values / 2)) / 2)
    values = np.exp(values - values.max())
    return np.asarray(values / values.sum())


def answer_texts(rules: Rules, one: Tokens) -> dict[str, list[Any]]:
    """Output of the text model -> its values for one text."""
    logits = one.logits[0]
    if rules["head"] == "regression":
        return {"values": [float(value) for value in logits]}
    several = rules["head"] == "multilabel"
    found = probabilities(several, logits / rules["temperature"])
    if not several:
        best = int(found.argmax())
        return {"label": [rules["labels"][best]], "score": [float(found[best])]}
    order = [number for number in np.argsort(-found, kind="stable") if found[number] >= rules["thresholds"][number]]
    return {"labels": ["|".join(rules["labels"][number] for number in order)], "scores": list(map(float, found))}


def answer_question(rules: Rules, context: str, found: Sequence[Tokens]) -> dict[str, list[Any]]:
    """Output of the text model -> its value for one question, of the N windows with their logits."""
    spans = [span for window in found for span in window_spans(rules, window)]  # (score, start, end)
    null = None
    if rules["null_threshold"] is not None:
        null = min(float(one.logits[0][0]) + float(one.logits[1][0]) for one in found)
    kept: list[tuple[float, int, int]] = []
    texts: set[str] = set()
    for span in sorted([*spans, *([] if null is None else [(null, 0, 0)])], key=lambda span: -span[0]):
        text = context[span[1] : span[2]]
        if text not in texts and len(kept) < rules["n_best"]:
            texts.add(text)
            kept.append(span)
    if null is not None and "" not in texts:
        kept.append((null, 0, 0))
    if not kept:
        kept.append((0.0, 0, 0))
    shares = probabilities(False, np.array([score for score, _, _ in kept]))
    best = next((number for number, (_, start, end) in enumerate(kept) if end > start), None)
    silent = best is None or (null is not None and null - kept[best][0] > rules["null_threshold"])
    if silent or best is None:
        best = next((number for number, (_, start, end) in enumerate(kept) if end <= start), 0)
    _, start, end = (0.0, 0, 0) if silent else kept[best]
    return {"answer": [context[start:end]], "score": [float(shares[best])], "start": [start], "end": [end]}


def window_spans(rules: Rules, one: Tokens) -> list[tuple[float, int, int]]:
    """(score, start, end) of the allowed spans between the window's n likeliest starts and ends, the best first."""
    starts, ends = (values[: len(one.ids)] for values in one.logits)
    first, last = (likeliest(values, rules["n_best"]) for values in (starts, ends))
    first = first[(one.starts[first] >= 0) & one.owned[first]]
    last = last[one.starts[last] >= 0]
    length = last[None, :] - first[:, None] + 1
    rows, columns = np.nonzero((length > 0) & (length <= rules["longest"]))
    rows, columns = first[rows], last[columns]
    scores = starts[rows].astype(np.float64) + ends[columns]
    order = np.argsort(-scores, kind="stable")[: rules["n_best"]]
    return [(float(scores[i]), int(one.starts[rows[i]]), int(one.ends[columns[i]])) for i in order]


def likeliest(logits: np.ndarray, count: int) -> np.ndarray:
    """The places of the largest logits, largest first; of equals the earlier."""
    return np.argsort(-logits, kind="stable")[:count]
