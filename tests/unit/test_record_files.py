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
        ("", "not JSON"),
        (GOOD[:-40], "not JSON"),
        ("[" * 100_000, "is nested too deep"),
        ('{"schema": 2, "versions": {"bertkit": "0.1.0"}}', "does not fit record schema 2: "),
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
    with pytest.raises(UserError, match="not UTF-8 at byte 24"):
        load(tmp_path)


# ---- older schemas ----

GOLDEN = Path(__file__).parents[1] / "golden" / "records"  # written by bertkit 0.1.0 at commit 88493bf


def test_a_run_of_schema_1_is_upgraded_and_nothing_is_invented() -> None:
    old = json.loads((GOLDEN / "schema-1-train.json").read_text())
    found = load(GOLDEN / "schema-1-train.json")
    made = found.mapping
    assert (found.upgraded_from, found.edited, made["schema"], made["kind"]) == (1, False, SCHEMA, "train")
    for name in ("command", "git", "versions", "metrics", "losses", "updates", "best"):
        assert made[name] == old[name]
    assert made["seeds"] == [{"seed": 1, "metrics": old["metrics"], "folder": None, "shard": None}]
    assert made["hardware"]["engine"]["threads"] == old["hardware"]["threads"]
    assert made["hardware"]["device"]["count"] == 1
    assert made["throughput"]["sequences_per_second"] == old["throughput"]["sequences_per_second"]
    assert made["throughput"]["counted"] == {**old["throughput"]["counted"], "slots": None}
    assert made["time"]["step_seconds"] == old["time"]["update_seconds"]
    assert made["fairness"]["corpus_sha256"] == old["data"]["train"]["sha256"]
    assert made["fairness"]["learning_rate"] == old["config"]["optimizer.learning_rate"]
    assert "sources" not in made["config"]
    for unknown in ("clip_order", "tokenizer", "model_sha256", "time_basis", "schedule_warmup_updates"):
        assert made["fairness"][unknown] is None
    unknown_times = ("whole_seconds", "compute_seconds", "communication_seconds", "warmup_seconds")
    assert [made["time"][name] for name in unknown_times] == [None] * 4
    assert made["energy"]["joules"] is None
    assert made["hardware"]["container"] is None


@pytest.mark.parametrize(("name", "count", "step_of"), [("infer", 2, "a call"), ("train", 1, "a mean of 1 updates")])
def test_a_measurement_of_schema_1_is_a_record_a_case(name: str, count: int, step_of: str) -> None:
    old = json.loads((GOLDEN / f"schema-1-bench-{name}.json").read_text())
    found = load_all(GOLDEN / f"schema-1-bench-{name}.json")
    assert len(found) == len(old["cases"]) == count
    for place, (record, case) in enumerate(zip(found, old["cases"], strict=True)):
        made = record.mapping
        assert (record.upgraded_from, record.place) == (1, place if count > 1 else None)
        assert made["fairness"]["measures"] == name
        assert made["case"]["batch_size"] == case["batch_size"]
        assert made["throughput"]["tokens_per_second"] == case["throughput"]["tokens_per_second"]
        times = case["latency_milliseconds" if name == "infer" else "update_milliseconds"]
        assert made["time"]["step_seconds"]["p50"] == pytest.approx(times["p50"] / 1e3)
        assert (made["time"]["step_of"], made["time"]["steps_timed"]) == (step_of, times["timed"])
        assert made["data"]["train"]["tokens"]["p100"] == case["workload"]["tokens_p100"]


def test_unsynchronised_workers_of_schema_1_keep_every_seed(tmp_path: Path) -> None:
    old = json.loads((GOLDEN / "schema-1-train.json").read_text())
    every = [
        {
            "rank": rank, "seed": 7 + rank, "metrics": {"accuracy": 0.5 + rank / 10}, "folder": f"worker-{rank}",
            "shard": "0/2",
        }
        for rank in range(2)
    ]  # fmt: skip
    spread = {"mean": 0.55, "standard_deviation": 0.07, "n": 2, "metric": "accuracy", "note": "selected"}
    (tmp_path / "record.json").write_text(json.dumps(old | {"workers": {"all": every, "best": 1, **spread}}))
    made = load(tmp_path).mapping
    assert [(one["seed"], one["metrics"]["accuracy"]) for one in made["seeds"]] == [(7, 0.5), (8, 0.6)]
    assert (made["selected"]["of"], made["selected"]["seed"], made["selected"]["mean"]) == (2, 8, 0.55)


@given(draw=st.data())
def test_a_damaged_file_is_one_line_or_flagged_never_a_traceback(
    draw: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    raw = bytearray((GOLDEN / "schema-1-train.json").read_bytes() if draw.draw(st.booleans()) else GOOD.encode())
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
        assert record.edited or record.upgraded_from or record.mapping == json.loads(GOOD)


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
