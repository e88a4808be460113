"""SQuAD's official metrics, in per cent and under the official names, equal to the published scripts in every digit.

A question without a prediction counts 0 and is named. For 1.1 the official script does the same; the one for 2.0 drops
it from `exact` and `f1` and then fails.
Source: evaluate-v1.1.py and evaluate-v2.0.py of the SQuAD explorer; Rajpurkar et al. 2018, arXiv:1806.03822.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from bertkit.data.tasks.squad.reader import Paragraph, Question
from bertkit.data.tasks.task import Metrics
from bertkit.errors import UserError

THRESHOLD = 1.0  # the official default: null odds above it turn a prediction into "no answer"

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class SquadScore:
    """Metrics of a set of predictions, and which ids did not fit."""

    metrics: Metrics
    examples: int  # questions
    missing: tuple[str, ...]  # ids of questions without a prediction
    unknown: tuple[str, ...]  # ids of predictions without a question


@dataclass(frozen=True)
class _Scored:
    """One question's scores before any threshold."""

    id: str
    answerable: bool
    prediction: str | None
    exact: float = 0  # 0 or 1
    f1: float = 0  # 0 to 1


def normalise(text: str) -> str:
    """Lower case, without ASCII punctuation, the words a, an and the, and superfluous white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def score_squad(
    paragraphs: Iterable[Paragraph],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None = None,
    version2: bool = False,
    threshold: float = THRESHOLD,
) -> SquadScore:
    """Predictions by question id, scored as SQuAD 1.1's or 2.0's official script does.

    `null_odds` (2.0 only) says by id how likely there is no answer: above `threshold` a prediction counts as none, and
    the best thresholds are looked for. Their order matters among equals, as in the official script.
    Raises UserError where a question has no reference answer (1.1), and where odds lack the id of a prediction.
    """
    judge = _score_v2 if version2 else _score_v1
    scored = [
        judge(question, predictions.get(question.id)) for paragraph in paragraphs for question in paragraph.questions
    ]
    ids = {one.id for one in scored}
    return SquadScore(
        _metrics_v2(scored, null_odds, threshold) if version2 else _metrics_v1(scored),
        len(scored),
        tuple(one.id for one in scored if one.prediction is None),
        tuple(name for name in predictions if name not in ids),
    )


# Version 1.1


def _score_v1(question: Question, prediction: str | None) -> _Scored:
    if not question.answers:
        raise UserError(
            f"question {question.id!r} has no reference answer",
            "squad (1.1) needs one for each question; squad2 (2.0) scores those that have none",
        )
    if prediction is None:
        return _Scored(question.id, True, None)
    said = normalise(prediction)
    references = {normalise(answer.text) for answer in question.answers}
    words = said.split()
    f1 = max(_overlap(reference.split(), words) for reference in references)
    return _Scored(question.id, True, prediction, int(said in references), f1)


def _overlap(reference: list[str], said: list[str]) -> float:
    """F1 of two bags of words; 0 where nothing is common, and so where one is empty."""
    same = sum(min(reference.count(word), said.count(word)) for word in {*reference}.intersection(said))
    if same == 0:
        return 0
    precision = same / len(said)
    recall = same / len(reference)
    return (2 * precision * recall) / (precision + recall)


def _metrics_v1(scored: list[_Scored]) -> Metrics:
    return {"exact_match": _mean(one.exact for one in scored), "f1": _mean(one.f1 for one in scored)}


def _mean(scores: Iterable[float]) -> float:
    """Per cent. Added up one by one, as the published numbers were: Python 3.12's `sum` rounds otherwise."""
    total, count = 0.0, 0
    for score in scores:
        total += score
        count += 1
    return 100.0 * total / count if count else 0.0


# Version 2.0


def _score_v2(question: Question, prediction: str | None) -> _Scored:
    answerable = bool(question.answers)
    if prediction is None:
        return _Scored(question.id, answerable, None)
    said = normalise(prediction)
    references = {normalise(answer.text) for answer in question.answers} - {""} or {""}
    words = said.split()
    f1 = max(_overlap_or_none(reference.split(), words) for reference in references)
    return _Scored(question.id, answerable, prediction, int(said in references), f1)


def _overlap_or_none(reference: list[str], said: list[str]) -> float:
    """F1, where two empty answers agree."""
    return _overlap(reference, said) if reference and said else int(reference == said)


def _metrics_v2(scored: list[_Scored], null_odds: Mapping[str, float] | None, threshold: float) -> Metrics:
    given = [one.id for one in scored if one.prediction is not None]
    odds = dict.fromkeys(given, 0.0) if null_odds is None else null_odds
    lacking = [name for name in given if name not in odds]
    if lacking:
        raise UserError(
            f"the null odds lack {len(lacking)} of the predictions' ids, first {lacking[0]!r}", "give odds for each"
        )
    final = [one if one.prediction is None or odds[one.id] <= threshold else _unanswered(one) for one in scored]
    groups = {
        "": final,
        "HasAns_": [one for one in final if one.answerable],
        "NoAns_": [one for one in final if not one.answerable],
    }
    found: Metrics = {}
    for prefix, group in groups.items():
        if group:
            found[f"{prefix}exact"] = _mean(one.exact for one in group)
            found[f"{prefix}f1"] = _mean(one.f1 for one in group)
            found[f"{prefix}total"] = len(group)
    if null_odds is not None:
        known = {one.id: one for one in scored if one.prediction is not None}
        for name, scores in (("exact", {one.id: one.exact for one in scored}), ("f1", {x.id: x.f1 for x in scored})):
            best, best_threshold = _best(known, scores, odds)
            found |= {f"best_{name}": 100.0 * best / len(scored), f"best_{name}_thresh": best_threshold}
    return found


def _unanswered(one: _Scored) -> _Scored:
    """The same question, its prediction taken for "no answer"."""
    right = float(not one.answerable)
    return replace(one, exact=right, f1=right)


def _best(known: Mapping[str, _Scored], scores: Mapping[str, float], odds: Mapping[str, float]) -> tuple[float, float]:
    """(best sum of scores, the threshold that gives it): from "no answer to any" towards "an answer to each"."""
    now = best = float(sum(not one.answerable for one in known.values()))
    threshold = 0.0
    for name in sorted(odds, key=odds.__getitem__):
        one = known.get(name)
        if one is None:
            continue
        if one.answerable:
            now += scores[name]
        elif one.prediction:
            now -= 1
        if now > best:
            best, threshold = now, odds[name]
    return best, threshold
