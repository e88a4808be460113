"""Files like SQuAD's: what other sets have otherwise is read where it means the same, else refused by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.tasks.squad.reader import Question, ReferenceAnswer, is_rows, read_squad
from bertkit.errors import UserError
from squad_json import ANSWERED, CONTEXT, cause, read, squad

ROW: dict[str, Any] = {
    "id": "q1", "title": "Normans", "context": CONTEXT, "question": "Who?",
    "answers": {"text": ["The Normans"], "answer_start": [0]},
}  # fmt: skip


def lines(*rows: object) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def test_ids_and_titles_may_be_numbers(tmp_path: Path) -> None:
    file = squad(ANSWERED | {"id": 262}, ANSWERED | {"id": -5})
    file["data"][0] |= {"title": 630}
    (found,) = read(tmp_path, file)
    assert (found.title, [question.id for question in found.questions]) == ("630", ["262", "-5"])
    file["data"][0] |= {"title": None}
    assert read(tmp_path, file)[0].title == ""
    assert cause(tmp_path, squad(ANSWERED | {"id": 1}, ANSWERED | {"id": "1"})) == ": the id '1' stands twice"


@pytest.mark.parametrize("id", [1.5, True, None, [1], {"a": 1}])
def test_ids_of_other_types_are_named(id: object, tmp_path: Path) -> None:
    assert "question 1: 'id' is " in cause(tmp_path, squad(ANSWERED | {"id": id}))


@pytest.mark.parametrize("said", [{"is_impossible": True}, {}, {"is_impossible": None}])
@pytest.mark.parametrize("start", [0, -1, None])
def test_an_empty_answer_says_that_there_is_none(said: dict[str, Any], start: int | None, tmp_path: Path) -> None:
    asked = {"id": "q1", "question": "Who?", "answers": [{"text": "", "answer_start": start}], **said}
    assert read(tmp_path, squad(asked))[0].questions == (Question("q1", "Who?", (), True),)
    assert "'text' is empty" in cause(
        tmp_path, squad(asked | {"is_impossible": False, "answers": [{"text": "", "answer_start": 1}]})
    )


def test_rows_of_datasets(tmp_path: Path) -> None:
    second = ROW | {
        "id": 2,
        "question": "Where?",
        "answers": {"text": ["Normandy", "of Normandy"], "answer_start": [29, 26]},
    }
    third = ROW | {"id": "q3", "context": "Another.", "answers": {"text": [], "answer_start": []}}
    listed = ROW | {"id": "q4", "context": "Another.", "answers": ANSWERED["answers"]}
    bare = {"id": "q5", "context": "A third.", "question": "What?"}
    found = read(tmp_path, lines(ROW, second, third, listed, bare) + b"\n")
    assert [(one.context, [question.id for question in one.questions]) for one in found] == [
        (CONTEXT, ["q1", "2"]), ("Another.", ["q3", "q4"]), ("A third.", ["q5"])
    ]  # fmt: skip
    questions = [question for one in found for question in one.questions]
    assert questions[0] == Question("q1", "Who?", (ReferenceAnswer("The Normans", 0),))
    assert questions[1].answers == (ReferenceAnswer("Normandy", 29), ReferenceAnswer("of Normandy", 26))
    assert [question.impossible for question in questions] == [False, False, True, False, False]
    assert [len(one.questions) for one in read(tmp_path, lines(ROW, second, third), 2)] == [2]
    assert found[0] == read(tmp_path, squad(ANSWERED, second | {"answers": [
        {"text": "Normandy", "answer_start": 29}, {"text": "of Normandy", "answer_start": 26}
    ]}))[0]  # fmt: skip


FAULTS: dict[str, Any] = {
    ":2 is a list, not an object": [1],
    ":2: has no 'context'": {name: value for name, value in ROW.items() if name != "context"},
    ":2: 'context' is a number, not a text": ROW | {"context": 5},
    ":2: has no 'id'": {name: value for name, value in ROW.items() if name != "id"},
    ":2 (id q2): 'question' is null, not a text": ROW | {"id": "q2", "question": None},
    ":2: 'answers' has 2 texts and 1 starts": ROW | {"answers": {"text": ["a", "b"], "answer_start": [0]}},
    ":2: 'answers': 'text' is a text, not a list": ROW | {"answers": {"text": "a", "answer_start": [0]}},
    ":2 (id q2), answer 1: 'answer_start' is a text": ROW
    | {"id": "q2", "answers": {"text": ["a"], "answer_start": ["0"]}},
    ": the id 'q1' stands twice": ROW,
}


@pytest.mark.parametrize("said", FAULTS)
def test_faults_of_a_row_are_named_with_its_line(said: str, tmp_path: Path) -> None:
    assert cause(tmp_path, lines(ROW, FAULTS[said])).startswith(said)


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    assert cause(tmp_path, lines(ROW) + b'{"id": "q2", "con').startswith(":2:1:")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*ROW, "x", "data"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(st.sampled_from([*ROW]), JSON)
def test_any_value_anywhere_is_read_or_refused(name: str, value: object) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        for raw in (lines(ROW | {name: value}), json.dumps(squad(ANSWERED | {name: value}, **{name: value})).encode()):
            path.write_bytes(raw)
            try:
                assert list(read_squad(path))
            except UserError as error:
                assert str(path) in error.cause  # noqa: PT017 - both are right


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (json.dumps(ROW), True),
        (json.dumps(squad(ANSWERED)), False),
        ('{"version": {"question": 1, "context": 2}, "data": []}', False),
        ("", False), ("{", False), ("[]", False), ("{}", False),
        ('{"question": 1}', False), ('{"a": ' + "[" * 100_000, False),
    ],
)  # fmt: skip
def test_rows_are_told_by_their_first_keys(text: str, rows: bool) -> None:
    assert is_rows(text) == rows
