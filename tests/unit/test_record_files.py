"""Record files: the schema that stands in the repository, what is read back, and one line for each bad file."""

from __future__ import annotations

import json
import re
import time
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bertkit.errors import UserError
from bertkit.files.disk import to_json
from bertkit.records.files import MOST_LOSSES, load, load_all, sealed, write, write_all
from bertkit.records.schema import SCHEMA, Kind, blank, check, json_schema
from conftest import ROOT


def test_the_schema_in_the_repository_is_that_of_the_classes() -> None:
    kept = (
        resources.files("bertkit").joinpath("records", "schemas", f"record-{SCHEMA}.json").read_text(encoding="utf-8")
    )
    assert kept == to_json(json_schema(), indent=1) + "\n", "write it anew: see docs/records.md"


def test_the_schema_is_one_to_others_too() -> None:
    """A validator of JSON Schema takes and refuses by the file what bertkit takes and refuses by the classes."""
    schema = json.loads(
        (ROOT / "bertkit" / "records" / "schemas" / f"record-{SCHEMA}.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    good = sealed(blank("train") | {"updates": 3, "losses": [0.5, None], "metrics": {"f1": 0.25}})
    assert valid(good)
    assert valid({"schema": SCHEMA, "kind": "collection", "records": [good]})
    for bad in (
        {"updates": "3"},
        {"losses": [True]},
        {"kind": "trian"},
        {"extra": 1},
        {"sha256": "x"},
        {"energy": None},
    ):
        assert not valid(good | bad), bad
        with pytest.raises(ValidationError):
            check(good | bad)
    assert not valid({name: value for name, value in good.items() if name != "memory"})


def test_every_field_stands_in_the_documents() -> None:
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")
    definitions = json_schema()["$defs"]
    assert [name for name in definitions if f"### {name}\n" not in page] == []
    lacking = [
        f"{name}.{field}"
        for name, part in definitions.items()
        for field, told in part["properties"].items()
        if not re.search(rf"^\| `{field}` \| .* \| {re.escape(told.get('description', ''))} ?\|$", page, re.MULTILINE)
    ]
    assert lacking == []


@pytest.mark.parametrize("kind", ["train", "bench", "published"])
def test_a_blank_record_fits_the_schema_and_claims_nothing(kind: Kind) -> None:
    made = blank(kind)
    check(made)
    numbers: list[Any] = []

    def visit(value: Any) -> None:
        for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(part)
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.append(value)

    visit(made)
    assert numbers == [SCHEMA]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    made = blank("train") | {"losses": [0.1, float("nan"), 1e-7], "updates": 3}
    written = write(tmp_path / "record.json", made)
    for path in (tmp_path, tmp_path / "record.json"):
        found = load(path)
        assert (found.mapping, found.edited) == (written, False)
        assert found.losses() == [0.1, None, 1e-7]


def test_many_losses_stand_beside_the_record(tmp_path: Path) -> None:
    losses = [1 / (3 + number) for number in range(MOST_LOSSES + 1)]
    write(tmp_path / "record.json", blank("train") | {"losses": losses})
    found = load(tmp_path)
    assert found.mapping["losses"] is None
    assert found.losses() == losses
    (tmp_path / "losses.json").write_text("[1.0]")
    with pytest.raises(UserError, match="is not the file that"):
        found.losses()
    (tmp_path / "losses.json").unlink()
    with pytest.raises(UserError, match=r"losses\.json: cannot be read"):
        found.losses()


@pytest.mark.parametrize("edit", [{"updates": 8}, {"sha256": None}, {"metrics": {"accuracy": 0.99}}])
def test_an_edited_record_is_flagged_and_still_read(edit: dict[str, Any], tmp_path: Path) -> None:
    written = write(tmp_path / "record.json", blank("train") | {"updates": 7, "metrics": {"accuracy": 0.5}})
    (tmp_path / "record.json").write_text(json.dumps(written | edit))
    assert load(tmp_path).edited
    (tmp_path / "record.json").write_text(json.dumps(dict(reversed(written.items())), indent=7))
    assert not load(tmp_path).edited  # order and spaces say nothing


def test_a_file_of_several(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    write_all(path, [sealed(blank("bench") | {"updates": number}) for number in range(3)])
    found = load_all(path)
    assert [(record.place, record.mapping["updates"], record.edited) for record in found] == [
        (0, 0, False), (1, 1, False), (2, 2, False),
    ]  # fmt: skip
    with pytest.raises(UserError, match="holds 3 records, not one"):
        load(path)


GOOD = json.dumps(sealed(blank("train")))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        (GOOD[:-40], "not JSON"),
        ("[" * 100_000, "is nested too deep"),
        ('{"schema": 2, "config": {}, "versions": {}}', "does not fit record schema 2: "),
        ("[]", "is no record of bertkit"),
        ('{"schema": "https://json-schema.org", "kind": "train"}', "is no record of bertkit"),
        ('{"schema": true, "kind": "train"}', "is no record of bertkit"),
        ('{"schema": 1, "results": []}', "is no record of bertkit"),
        ('{"schema": 2}', "is no record of bertkit"),
        ('{"schema": 3, "kind": "train"}', "was written by a newer bertkit (record schema 3, this one reads 2)"),
        ('{"schema": 2, "kind": "train"}', "does not fit record schema 2: sha256: Field required"),
        ('{"schema": 2, "kind": "collection"}', "records is no list"),
        (GOOD.replace('"updates": null', '"updates": "7"'), "does not fit record schema 2: "),
        (GOOD.replace('"updates": null', '"updates": true'), "does not fit record schema 2: "),
        (GOOD.replace('"joules": null', '"joules": NaN'), "energy.joules"),
        (GOOD.replace('"joules"', '"jouls"'), "energy.joules"),
        ('{"schema": 1, "config": {}, "versions": {"bertkit": "0.1.0"}}', "(record schema 1, this one reads 2)"),
        ('{"schema": 1, "kind": "bench-train", "cases": 3}', "was written by an older bertkit (record schema 1"),
        ('{"schema": 1, "task": "cola", "versions": {}}', "is no record of bertkit"),
    ],
)
def test_a_bad_file_is_one_line_with_file_and_cure(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_all(path)
    assert str(path) in caught.value.cause
    assert said in caught.value.cause
    assert caught.value.cure
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        load(tmp_path / "nothing")
    (tmp_path / "record.json").write_bytes(b'{"schema": 2, "kind": "\xff"}')
    with pytest.raises(UserError, match="not UTF-8 at byte 24"):
        load(tmp_path)


# ---- damage ----


@given(draw=st.data())
def test_a_damaged_file_is_one_line_or_flagged_never_a_traceback(
    draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray(GOOD.encode())
    for _ in range(draw.draw(st.integers(1, 4))):
        raw[draw.draw(st.integers(0, len(raw) - 1))] = draw.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(raw[: draw.draw(st.integers(0, len(raw)))] if draw.draw(st.booleans()) else raw)
    found, said = [], f"{path}: one line"
    try:
        found = load_all(path)
    except UserError as error:
        said = str(error)
    assert said.startswith(str(path))
    assert "\n" not in said
    for record in found:
        assert set(record.mapping) == set(blank("train"))
        assert record.edited or record.mapping == json.loads(GOOD)


# ---- cost ----


def test_reading_a_record_takes_few_milliseconds(tmp_path: Path) -> None:
    """1,000 records are to be compared in 5 s: reading one may take 2 ms; CPU time, with room for a slow machine."""
    made = blank("train") | {"losses": [1 / (3 + number) for number in range(MOST_LOSSES)]}
    made["config"] = {f"section.key_{number}": number for number in range(70)}
    write(tmp_path / "record.json", made)
    load(tmp_path)
    start = time.process_time()
    for _ in range(20):
        load(tmp_path)
    assert (time.process_time() - start) / 20 < 0.005
