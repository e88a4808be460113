"""`bertkit.tasks.squad.reader`: a good file comes through unchanged, every fault of a file is named with its place."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.tasks.squad.reader import Answer, Paragraph, Question, read_squad

CONTEXT = "The Normans were a people of Normandy."
ANSWERED: dict[str, Any] = {
    "id": "q1", "question": "Who?", "answers": [{"text": "The Normans", "answer_start": 0}]
}  # fmt: skip


def squad(*questions: Any, **paragraph: Any) -> dict[str, Any]:
    entry = {"context": CONTEXT, "qas": list(questions)} | paragraph
    return {"version": "1.1", "data": [{"title": "Normans", "paragraphs": [entry]}]}


def write(folder: Path, value: object) -> Path:
    path = folder / "some.json"
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def read(folder: Path, value: object, rows: int = 0) -> list[Paragraph]:
    return list(read_squad(write(folder, value), rows))


def cause(folder: Path, value: object) -> str:
    """What is said of a bad file, with the file's path taken out."""
    with pytest.raises(UserError) as caught:
        read(folder, value)
    assert caught.value.cure
    assert caught.value.cause.startswith(str(folder / "some.json"))
    return caught.value.cause.removeprefix(str(folder / "some.json"))


# Good files


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    found = read(tmp_path, squad(ANSWERED, {"id": "q2", "question": "Why?", "answers": [], "is_impossible": True}))
    first = Question("q1", "Who?", (Answer("The Normans", 0),))
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
    count, size = 200, 200
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
answers = st.builds(Answer, words, st.integers(-5, 10**6))
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


# Bad files


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file.*bertkit data get squad"):
        list(read_squad(tmp_path / "none.json"))
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        list(read_squad(tmp_path))


BROKEN = {
    b"": ": is empty",
    b" \n": ": is empty",
    b"\xef\xbb\xbf": ": is empty",
    b'{"data": [caf\xe9]}': ": not UTF-8 at byte 14",
    b'{"data": [\n  {"title": }]}': ":2:13: not JSON: Expecting value",
    b'{"data": [{"paragraphs": []}\n,]}': ":2:2: not JSON: Expecting value",
    b'{"data": []} more': ":1:14: not JSON: Extra data",
    b'{"data" []}': ":1:9: not JSON: Expecting ':'",
    b'{"version": 1 "data": []}': ":1:15: not JSON: Expecting ',' or '}'",
    b"{data: []}": ":1:2: not JSON: Expecting property name enclosed in double quotes",
    b'{"data": [], }': ":1:14: not JSON: Expecting property name enclosed in double quotes",
    b'{"data": [' + b"[" * 100_000: ": is nested too deep",
    b'{"version": ' + b"1" * 5000 + b', "data": []}': ": not JSON that can be read: ",
    b"[]": ": holds a list, not an object with 'data'",
    b'"text"': ": holds a text, not an object with 'data'",
    b"{}": ": has no 'data': it is no file of SQuAD",
    b'{"version": "1.1"}': ": has no 'data': it is no file of SQuAD",
    b'{"data": {}}': ": 'data' is an object, not a list of articles",
    b'{"data": null}': ": 'data' is null, not a list of articles",
    b'{"data": [], "data": []}': ": 'data' stands twice",
    b'{"data": []}': ": holds no question",
    b'{"data": [{"paragraphs": []}]}': ": holds no question",
}


@pytest.mark.parametrize("raw", BROKEN, ids=lambda raw: raw[:30].decode("latin-1"))
def test_broken_files(raw: bytes, tmp_path: Path) -> None:
    assert cause(tmp_path, raw).startswith(BROKEN[raw])


@pytest.mark.parametrize("raw", [b'{"data": [{"title": "Nor', b'{"data": [', b'{"data": [{"paragraphs": []}'])
def test_a_cut_file_is_said_to_be_cut(raw: bytes, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cut off: fetch or make it again"):
        read(tmp_path, raw)


ARTICLE = ": article 1 ('Normans'), paragraph 1"
HERE = f"{ARTICLE}, question 2 (id q2)"
NEXT = ANSWERED | {"id": "q2"}


def without(name: str, **more: object) -> dict[str, Any]:
    return {key: value for key, value in NEXT.items() if key != name} | more


def answer(**values: object) -> dict[str, Any]:
    return NEXT | {"answers": [*NEXT["answers"], values]}


FAULTS: dict[str, Any] = {
    f"{ARTICLE}, question 2: has no 'id'": without("id"),
    f"{ARTICLE}, question 2: 'id' is a number, not a text": NEXT | {"id": 2},
    f"{ARTICLE}, question 2: 'id' is empty": NEXT | {"id": ""},
    f"{ARTICLE}, question 2: is a text, not an object": "Who?",
    f"{HERE}: has no 'question'": without("question"),
    f"{HERE}: 'question' is null, not a text": NEXT | {"question": None},
    f"{HERE}: 'question' is empty": NEXT | {"question": " \n"},
    f"{HERE}: 'question' holds half of a character pair (\\ud800 to \\udfff)": NEXT | {"question": "a\ud83d"},
    f"{HERE}: 'answers' is an object, not a list": NEXT | {"answers": {"text": ["a"], "answer_start": [0]}},
    f"{HERE}: 'is_impossible' is a text, not true or false": NEXT | {"is_impossible": "no"},
    f"{HERE}: 'is_impossible' is true, yet it has answers": NEXT | {"is_impossible": True},
    f"{HERE}, answer 2: has no 'text'": answer(answer_start=1),
    f"{HERE}, answer 2: has no 'answer_start'": answer(text="a"),
    f"{HERE}, answer 2: 'text' is empty": answer(text="", answer_start=0),
    f"{HERE}, answer 2: 'text' is a list, not a text": answer(text=["a"], answer_start=0),
    f"{HERE}, answer 2: 'answer_start' is 1.5, not a whole number": answer(text="a", answer_start=1.5),
    f"{HERE}, answer 2: 'answer_start' is true or false, not a whole number": answer(text="a", answer_start=True),
    f"{HERE}, answer 2: 'answer_start' is a text, not a whole number": answer(text="a", answer_start="1"),
    ": the id 'q1' stands twice": ANSWERED,
}


@pytest.mark.parametrize("said", FAULTS)
def test_faults_of_a_question(said: str, tmp_path: Path) -> None:
    assert cause(tmp_path, squad(ANSWERED, FAULTS[said])) == said


@pytest.mark.parametrize(
    ("paragraph", "said"),
    [
        ({"context": ""}, "'context' is empty"),
        ({"context": " \t"}, "'context' is empty"),
        ({"context": 5}, "'context' is a number, not a text"),
        ({"qas": {}}, "'qas' is an object, not a list"),
    ],
)
def test_faults_of_a_paragraph(paragraph: dict[str, Any], said: str, tmp_path: Path) -> None:
    assert cause(tmp_path, squad(ANSWERED, **paragraph)) == f"{ARTICLE}: {said}"


@pytest.mark.parametrize("name", ["context", "qas"])
def test_a_paragraph_that_lacks_something(name: str, tmp_path: Path) -> None:
    file = squad(ANSWERED)
    del file["data"][0]["paragraphs"][0][name]
    assert cause(tmp_path, file) == f"{ARTICLE}: has no {name!r}"


@pytest.mark.parametrize(
    ("article", "said"),
    [
        (5, ": article 1: is a number, not an object"),
        ({"title": 5}, ": article 1: 'title' is a number, not a text"),
        ({"title": "A"}, ": article 1 ('A'): has no 'paragraphs'"),
        ({"title": "A", "paragraphs": "x"}, ": article 1 ('A'): 'paragraphs' is a text, not a list"),
        ({"title": "A", "paragraphs": ["x"]}, ": article 1 ('A'), paragraph 1: is a text, not an object"),
    ],
)
def test_faults_of_an_article(article: object, said: str, tmp_path: Path) -> None:
    assert cause(tmp_path, {"data": [article]}) == said


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
