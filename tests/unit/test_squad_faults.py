"""`bertkit.data.tasks.squad.reader`: every fault of a file is named with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bertkit.data.tasks.squad.reader import read_squad
from bertkit.errors import UserError
from squad_json import ANSWERED, cause, read, squad


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: cannot be read: No such file.*bertkit data get squad"):
        list(read_squad(tmp_path / "none.json"))
    with pytest.raises(UserError, match="is a folder, not a file"):
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
    f"{ARTICLE}, question 2: 'id' is a number, not a text": NEXT | {"id": 2.5},
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
        ({"title": 5.5}, ": article 1: 'title' is a number, not a text"),
        ({"title": "A"}, ": article 1 ('A'): has no 'paragraphs'"),
        ({"title": "A", "paragraphs": "x"}, ": article 1 ('A'): 'paragraphs' is a text, not a list"),
        ({"title": "A", "paragraphs": ["x"]}, ": article 1 ('A'), paragraph 1: is a text, not an object"),
    ],
)
def test_faults_of_an_article(article: object, said: str, tmp_path: Path) -> None:
    assert cause(tmp_path, {"data": [article]}) == said
