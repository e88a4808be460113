"""SQuAD 2.0's metrics against the copy of the official script that transformers carries."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from bertkit.data.tasks.squad.metrics import score_squad
from bertkit.data.tasks.squad.reader import Paragraph, read_squad

official = pytest.importorskip("transformers.data.metrics.squad_metrics")


def predictions(paragraphs: list[Paragraph], stream: random.Random) -> dict[str, str]:
    """Right, cut short, wrong and empty answers, and some of which nothing is left."""
    made = {}
    for paragraph in paragraphs:
        for question in paragraph.questions:
            texts = [answer.text for answer in question.answers] or [paragraph.context[:20]]
            text = stream.choice(texts)
            made[question.id] = stream.choice([text, text, text[: len(text) // 2], paragraph.context[:30], "", "the"])
    return made


@pytest.mark.parametrize("with_odds", [False, True])
def test_version_2(with_odds: bool, real_data: Path) -> None:
    path = real_data / "squad" / "dev-v2.0.rebuilt.json"
    if not path.exists():
        pytest.skip(f"no {path}")
    paragraphs = list(read_squad(path))
    stream = random.Random(7)  # noqa: S311 - answers, not secrets
    said = predictions(paragraphs, stream)
    questions = {question.id: question for paragraph in paragraphs for question in paragraph.questions}
    odds = {
        name: round(stream.gauss(1 if question.impossible else 0, 2), 1)  # rounded: many are equal
        for name, question in questions.items()
    }
    given = odds if with_odds else None
    examples = [
        SimpleNamespace(qas_id=name, answers=[{"text": answer.text} for answer in question.answers])
        for name, question in questions.items()
    ]
    wanted = dict(official.squad_evaluate(examples, said, given, 1.0))
    if not with_odds:  # that copy then looks for thresholds among odds of 0; the official script does not
        wanted = {name: value for name, value in wanted.items() if not name.startswith("best_")}
    assert score_squad(paragraphs, said, given, version2=True).metrics == pytest.approx(wanted, rel=1e-12)
