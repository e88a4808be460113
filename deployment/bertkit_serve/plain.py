"""Plain JSON, for one line of curl: texts to /predict, questions to /answer.

One example in, one answer out; a list in, a list out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bertkit import Answer, Prediction, Predictor
from bertkit.plugin import UserError
from bertkit_serve.faces import entities

KNOWN = ("model", "text", "text_pair", "choices", "question", "context")


def examples_of(predictor: Predictor, told: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], bool]:
    """(the examples as `Predictor.fields` names their texts, whether they came as a list).

    Raises UserError for keys that are unknown and texts that do not fit.
    """
    fields = predictor.fields
    for key in told:
        if key not in KNOWN:
            raise UserError(f"there is no {key[:40]!r} in such a request", f"send {', '.join(fields)}")
        if key not in ("model", *fields):
            raise UserError(f"{predictor.task.name} takes no {key}", f"send {', '.join(fields)}")
    first, *rest = fields
    if first not in told:
        raise UserError(f"{first!r} is missing", f"send {', '.join(fields)}")
    listed = isinstance(told[first], list)
    if not listed:
        return [_example(fields, [told.get(field) for field in fields], "")], False
    if rest and not any(field in told for field in rest):  # [[text, pair], …]
        rows = [row if isinstance(row, list) else [row] for row in told[first]]
    else:
        columns = [_column(told.get(field), field, len(told[first])) for field in fields]
        rows = [list(row) for row in zip(*columns, strict=True)]
    if not rows:
        raise UserError(f"{first!r} is an empty list", "send one at least")
    return [_example(fields, row, f" of example {number}") for number, row in enumerate(rows)], True


def _column(values: Any, field: str, count: int) -> list[Any]:
    """A list beside a list, or one text for all."""
    if isinstance(values, str) and field == "context":
        return [values] * count
    if not isinstance(values, list) or len(values) != count:
        raise UserError(f"{field!r} is not a list of {count:,}", "send one for each")
    return values


def _example(fields: Sequence[str], row: Sequence[Any], where: str) -> tuple[str, ...]:
    if len(row) != len(fields):
        raise UserError(f"{len(row)} texts{where}, not {len(fields)}", f"send {', '.join(fields)}")
    found: list[str] = []
    for field, value in zip(fields, row, strict=True):
        values = value if field == "choices" and isinstance(value, list) else [value]
        if not all(isinstance(each, str) for each in values):
            raise UserError(f"{field!r}{where} is not a text", "send one")
        found += values
    return tuple(found)


def answer_of(found: Prediction | Answer) -> dict[str, Any]:
    """As `bertkit predict --json` and `bertkit ask --json` name its parts."""
    if isinstance(found, Answer):
        told = {"answer": found.text, "probability": found.probability, "start": found.start, "end": found.end}
        return told if found.null_odds is None else told | {"null_odds": found.null_odds}
    if found.choice is not None:
        return {"choice": found.choice, "label": found.label, "probability": found.scores[str(found.label)]}
    if found.label is None and found.value is None:
        return {"entities": entities(found)}
    if found.value is not None:
        return dict(found.values) or {"value": found.value}
    if found.several:
        return {
            "labels": list(found.labels),
            "probabilities": [found.scores[label] for label in found.labels],
            "scores": dict(found.scores),
        }
    return {"label": found.label, "probability": found.scores[str(found.label)], "scores": dict(found.scores)}
