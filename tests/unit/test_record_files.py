"""Record files: the schema that stands in the repository, what is read back, and one line for each bad file."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from bertkit.disk import to_json
from bertkit.errors import UserError
from bertkit.record_files import MOST_LOSSES, load, load_all, sealed, write, write_all
from bertkit.record_types import SCHEMA, Kind, blank, check, json_schema


def test_the_schema_in_the_repository_is_that_of_the_classes() -> None:
    kept = resources.files("bertkit").joinpath("schemas", f"record-{SCHEMA}.json").read_text(encoding="utf-8")
    assert kept == to_json(json_schema(), indent=1) + "\n", "write it anew: see docs/records.md"


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
        assert (found.mapping, found.edited, found.upgraded_from) == (written, False, None)
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
        ("", "is cut off or no JSON at byte 0"),
        (GOOD[:-40], "is cut off or no JSON at byte"),
        ("[" * 100_000, "is cut off or no JSON"),
        ("[]", "is no record of bertkit"),
        ('{"schema": "https://json-schema.org", "kind": "train"}', "is no record of bertkit"),
        ('{"schema": true, "kind": "train"}', "is no record of bertkit"),
        ('{"schema": 1, "results": []}', "is no record of bertkit"),
        ('{"schema": 2}', "is no record of bertkit"),
        ('{"schema": 3, "kind": "train"}', "was written by a newer bertkit (record schema 3, this one reads up to 2)"),
        ('{"schema": 2, "kind": "train"}', "does not fit record schema 2: sha256: Field required"),
        ('{"schema": 2, "kind": "collection"}', "records is no list"),
        (GOOD.replace('"updates": null', '"updates": "7"'), "does not fit record schema 2: "),
        (GOOD.replace('"updates": null', '"updates": true'), "does not fit record schema 2: "),
        (GOOD.replace('"joules": null', '"joules": NaN'), "energy.joules"),
        (GOOD.replace('"joules"', '"jouls"'), "energy.joules"),
        ('{"schema": 1, "versions": {"bertkit": "0.1.0"}}', "does not fit record schema 1: KeyError"),
        ('{"schema": 1, "kind": "bench-train", "cases": 3}', "does not fit record schema 1: TypeError"),
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
    with pytest.raises(UserError, match="is cut off or no JSON"):
        load(tmp_path)
