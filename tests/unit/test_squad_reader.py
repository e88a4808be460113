"""`bertkit.data.tasks.squad.reader`: a good file comes through unchanged, and none that is cut off passes for whole."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertkit.data.tasks.squad.reader import Paragraph, Question, ReferenceAnswer, read_squad
from bertkit.errors import UserError
from squad_json import ANSWERED, CONTEXT, cause, read, squad, write

# Good files


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, squad(ANSWERED, {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}))
    first = Question("q1", "Who?", (ReferenceAnswer("The Normans", 0),))
    assert found == [Paragraph("Normans", CONTEXT, (first, Question("q2", "Why?", (), True)))]


def test_a_test_file_has_no_answers(tmp_path: Path) -> None:
    (found,) = read(tmp_path, squad({"id": "q1", "question": "Who?"}))
    assert found.questions == (Question("q1", "Who?", ()),)


def test_a_title_may_be_absent(tmp_path: Path) -> None:
    file = squad(ANSWERED)
    del file["data"][0]["title"]
    assert read(tmp_path, file)[0].title == ""


@pytest.mark.parametrize(
    "file",
    [
        b'\xef\xbb\xbf{"data": %b, "version": "1.1"}',
        b'{"version": {"a": [1, {}]}, "data": %b, "more": []}',
        b' \r\n{\t"data"\n:%b\r\n}\n\n ',
        b'{"data" : %b }',
    ],
)
def test_where_data_stands_does_not_matter(file: bytes, tmp_path: Path) -> None:
    articles = json.dumps(squad(ANSWERED)["data"]).encode()
    assert read(tmp_path, file % articles) == read(tmp_path, squad(ANSWERED))


def test_only_so_many_questions_from_the_beginning(tmp_path: Path) -> None:
    asked = [ANSWERED | {"id": f"q{number}"} for number in range(6)]
    file = squad(*asked[:2])
    file["data"][0]["paragraphs"].append({"context": "Two.", "qas": asked[2:4]})
    file["data"] += [*squad(*asked[4:])["data"], "no article"]
    for rows in range(1, 6):
        found = read(tmp_path, file, rows)
        assert [question.id for one in found for question in one.questions] == [f"q{number}" for number in range(rows)]
    assert cause(tmp_path, file) == ": article 3: is a text, not an object"


def test_an_article_is_decoded_when_its_turn_comes(tmp_path: Path) -> None:
    first = json.dumps(squad(ANSWERED)["data"][0])
    path = write(tmp_path, f'{{"data": [{first}, broken'.encode())
    walk = read_squad(path)
    assert next(walk).context == CONTEXT
    with pytest.raises(UserError, match="not JSON"):
        next(walk)


def test_memory_holds_the_text_and_little_more(tmp_path: Path) -> None:
    count, size = 100, 60
    articles = [
        {"title": "", "paragraphs": [{"context": "x", "qas": [ANSWERED | {"id": f"{n}-{m}"} for m in range(size)]}]}
        for n in range(count)
    ]
    path = write(tmp_path, {"data": articles})
    del articles
    tracemalloc.start()
    total = sum(len(paragraph.questions) for paragraph in read_squad(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == count * size
    assert peak < 4 * path.stat().st_size  # bytes, text, the ids seen, one article; the whole tree takes ten times


# Any file survives, and none that is cut off passes

# all characters but halves of pairs
words = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip)
answers = st.builds(ReferenceAnswer, words, st.integers(-5, 10**6))
paragraphs = st.lists(
    st.tuples(
        st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
        words,
        st.lists(st.tuples(words, words, st.lists(answers, max_size=3), st.booleans()), max_size=4),
    ),
    max_size=4,
)


def as_paragraphs(drawn: Any) -> list[Paragraph]:
    found = []
    for title, context, questions in drawn:
        asked = [Question(name, text, tuple(known), void and not known) for name, text, known, void in questions]
        found.append(Paragraph(title, context, tuple(asked)))
    return found


def as_json(found: list[Paragraph]) -> dict[str, Any]:
    data = []
    for paragraph in found:
        asked = [
            {
                "id": one.id,
                "question": one.text,
                "answers": [{"text": answer.text, "answer_start": answer.start} for answer in one.answers],
                "is_impossible": one.impossible,
            }
            for one in paragraph.questions
        ]
        data.append({"title": paragraph.title, "paragraphs": [{"context": paragraph.context, "qas": asked}]})
    return {"data": data, "version": "2.0"}


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=paragraphs, ascii_only=st.booleans(), indent=st.sampled_from([None, 0, 2]))
def test_any_file_survives_writing_and_reading(
    drawn: Any, ascii_only: bool, indent: int | None, tmp_path: Path
) -> None:
    wanted = as_paragraphs(drawn)
    raw = json.dumps(as_json(wanted), ensure_ascii=ascii_only, indent=indent).encode()
    names = [question.id for one in wanted for question in one.questions]
    if not names:
        assert cause(tmp_path, raw) == ": holds no question"
    elif len(set(names)) < len(names):
        assert "stands twice" in cause(tmp_path, raw)
    else:
        assert read(tmp_path, raw) == wanted


WHOLE = json.dumps(squad(ANSWERED, ANSWERED | {"id": "é中😀"}), ensure_ascii=False, indent=1).encode() + b"\n \n"


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(at=len(WHOLE) - 4)
@example(at=len(WHOLE) - 3)
@given(at=st.integers(0, len(WHOLE)))
def test_a_file_that_is_cut_off_is_never_taken_for_whole(at: int, tmp_path: Path) -> None:
    if at >= len(WHOLE.rstrip()):
        assert len(read(tmp_path, WHOLE[:at])) == 1
    else:
        said = cause(tmp_path, WHOLE[:at])
        assert "not JSON" in said or "not UTF-8" in said or "is empty" in said


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, len(WHOLE) - 1), byte=st.integers(0, 255))
def test_a_spoilt_byte_never_ends_in_a_traceback(at: int, byte: int, tmp_path: Path) -> None:
    spoilt = WHOLE[:at] + bytes([byte]) + WHOLE[at + 1 :]
    try:
        assert read(tmp_path, spoilt)
    except UserError as error:
        assert error.cure  # noqa: PT017 - either is right


# The published files


@pytest.mark.parametrize(
    ("name", "questions", "answered"),
    [("dev-v1.1.json", 10_570, 10_570), ("dev-v2.0.rebuilt.json", 11_873, 5_928)],
)
def test_the_published_dev_sets(name: str, questions: int, answered: int, real_data: Path) -> None:
    path = real_data / "squad" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    found = [question for paragraph in read_squad(path) for question in paragraph.questions]
    assert len(found) == questions
    assert sum(bool(question.answers) for question in found) == answered
    assert sum(question.impossible for question in found) == questions - answered
