"""Small files in SQuAD's format, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkit.data.tasks.squad.reader import Paragraph, Question, ReferenceAnswer

CONTEXT = "The plot of the film is good, but the music was never loud. The hero is a bold villain!"


def paragraph(context: str, *asked: tuple[str, Sequence[str]]) -> Paragraph:
    """A paragraph whose questions are (text, answers), each answer standing where it is first found; () : none."""
    questions = (
        Question(
            f"q{n}-{len(context)}", text, tuple(ReferenceAnswer(a, context.index(a)) for a in answers), not answers
        )
        for n, (text, answers) in enumerate(asked)
    )
    return Paragraph("Title", context, tuple(questions))


def to_squad(paragraphs: Sequence[Paragraph], version2: bool = False) -> dict[str, Any]:
    def question(one: Question) -> dict[str, Any]:
        answers = [{"text": answer.text, "answer_start": answer.start} for answer in one.answers]
        extra = {"is_impossible": one.impossible} if version2 else {}
        return {"id": one.id, "question": one.text, "answers": answers, **extra}

    held = [{"context": one.context, "qas": [question(q) for q in one.questions]} for one in paragraphs]
    return {"version": "v2.0" if version2 else "1.1", "data": [{"title": "Title", "paragraphs": held}]}


def write_squad(path: Path, paragraphs: Sequence[Paragraph], version2: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_squad(paragraphs, version2)), encoding="utf-8")
    return path


def reviews(count: int, version2: bool = False) -> list[Paragraph]:
    """Paragraphs about films, two questions each, in words of the sample task's vocabulary; each a little different."""
    things, words = ("plot", "music", "cast", "ending", "hero", "pace"), ("good", "dull", "bold", "flat", "rich")
    made = []
    for number in range(count):
        one, other = things[number % 6], things[(number // 6 + number + 1) % 6]
        word, second = words[number % 5], words[(number + 2) % 5]
        context = f"{'so ' * (number % 3)}the {one} is {word} and the {other} was {second} {'really ' * (number % 4)}."
        asked: list[tuple[str, Sequence[str]]] = [(f"the {one} is ?", [word]), (f"the {other} was ?", [second])]
        if version2:
            asked[1] = (asked[1][0], ())
        paragraph_ = paragraph(context, *asked)
        questions = tuple(
            Question(f"{number}-{q}", one_.text, one_.answers, one_.impossible)
            for q, one_ in enumerate(paragraph_.questions)
        )
        made.append(Paragraph("Reviews", context, questions))
    return made
