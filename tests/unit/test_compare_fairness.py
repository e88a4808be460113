"""What should not differ between compared runs: each item is named, a single one at a time; `--strict` refuses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from bertkit.comparison.comparison import Comparison, compare
from bertkit.comparison.entries import entry
from bertkit.comparison.fairness import Difference, Value, refused
from bertkit.comparison.text import fairness_lines
from bertkit.records import fields
from bertkit.records.fields import Fact, Fairness, plain_names
from bertkit.records.files import Record, sealed
from made_records import FACTS, other, record

FIELDS = [field.name for field in dataclasses.fields(Fairness)]


def compared(*records: dict[str, Any]) -> Comparison:
    named = zip("abcdefgh", records, strict=False)
    return compare([entry(Record(sealed(made), Path(name, "record.json"))) for name, made in named])


def test_the_records_of_these_tests_know_every_item() -> None:
    assert set(FIELDS) == set(FACTS) == set(plain_names()) - {"concurrency", "request_rate"}


@pytest.mark.parametrize("field", ["concurrency", "request_rate"])
def test_the_load_of_a_server_must_match(field: str) -> None:
    one, two = record(), record()
    one["config"][field], two["config"][field] = 4, 16
    found = compared(one, two)
    assert [(each.field, each.weight) for each in found.differences] == [(field, "unfair")]
    assert ": 4 (a); 16 (b)" in fairness_lines(found)[1]


@pytest.mark.parametrize("field", FIELDS)
def test_each_item_that_differs_is_named(field: str) -> None:
    made = compared(record(), record(facts={field: other(FACTS[field])}))
    (found,) = made.differences
    assert (found.field, found.weight) == (field, "unfair")
    lines = fairness_lines(made)
    assert lines[0] == "Not comparable: these must match:"
    assert lines[1].startswith(f"  {plain_names()[field]}: ")
    assert "(a)" in lines[1]
    assert "(b)" in lines[1]
    assert refused(made.differences) == [found]


@pytest.mark.parametrize("field", FIELDS)
def test_each_item_that_one_record_does_not_know_is_named(field: str) -> None:
    made = compared(record(), record(facts={field: None}))
    (found,) = made.differences
    assert (found.field, found.weight, found.unknown) == (field, "unknown", ("b",))
    assert "unknown (b)" in str(found)
    assert refused(made.differences)


def test_what_no_record_knows_is_no_difference() -> None:
    nothing = dict.fromkeys(FIELDS)
    made = compared(record(facts=nothing), record(facts=nothing, precision={"name": "bf16"}))
    assert [one.field for one in made.differences] == ["precision"]


def test_the_same_is_said_to_be_the_same() -> None:
    made = compared(record(), record(devices=2))
    assert fairness_lines(made)[0] == "Comparable: all settings that must match do."
    assert [(one.field, one.weight) for one in made.differences] == [("devices", "noted")]
    assert refused(made.differences) == []
    assert compared(record()).differences == []


def test_precision_and_versions_are_noted_and_not_refused() -> None:
    one = record(versions={"torch": "2.12.0"}, precision={"name": "bf16"})
    made = compared(record(), one)
    assert [(one.field, one.weight) for one in made.differences] == [
        ("precision", "noted"), ("version_torch", "noted"),
    ]  # fmt: skip


def test_the_unfair_comes_first_then_the_unknown() -> None:
    made = compared(record(), record(facts={"clip_norm": None, "hidden_dropout": 0.0}, precision={"name": "bf16"}))
    assert [one.weight for one in made.differences] == ["unfair", "unknown", "noted"]


def test_whole_numbers_and_fractions_of_one_value_are_equal() -> None:
    made = compared(record(facts={"clip_norm": 1}), record(facts={"clip_norm": 1.0}, devices=2))
    assert [one.field for one in made.differences] == ["devices"]


def test_a_difference_too_small_to_print_is_still_one() -> None:
    made = compared(record(facts={"learning_rate": 5e-5}), record(facts={"learning_rate": 5.0000001e-5}))
    assert [one.field for one in made.differences] == ["learning_rate"]
    texts = [value.text for value in made.differences[0].values]
    assert len(set(texts)) == 2


def test_a_score_in_another_unit_is_named() -> None:
    made = compared(record(units={"f1": "fraction"}), record(units={"f1": "percent"}, devices=2))
    assert str(made.differences[0]) == "unit of f1: fraction (a); percent (b)"
    assert made.differences[0].weight == "unfair"


def test_long_lists_are_counted() -> None:
    many = Difference("x", "thing", "unfair", [Value(str(n), tuple("abcdef")) for n in range(7)])
    assert str(many) == (
        "thing: 0 (a, b, c, d and 2 more); 1 (a, b, c, d and 2 more); 2 (a, b, c, d and 2 more); "
        "3 (a, b, c, d and 2 more); 3 other values"
    )


def test_what_one_record_leaves_unsaid_is_one_line() -> None:
    made = compared(record(), record(facts={"clip_order": None, "epsilon": None}), record(facts={"beta1": None}))
    assert fairness_lines(made)[:3] == [
        "Unknown for some runs:",
        "  c: decay of the first moment",
        "  b: epsilon, clip order",
    ]


def test_hashes_are_shown_short_and_never_equal_when_they_differ() -> None:
    near = FACTS["corpus_sha256"][:-1] + "0"
    made = compared(record(), record(facts={"corpus_sha256": near}))
    assert [one.field for one in made.differences] == ["corpus_sha256"]
    assert FACTS["corpus_sha256"][:8] in str(made.differences[0])
    assert FACTS["corpus_sha256"] not in str(made.differences[0])


def test_a_line_in_the_table_of_facts_is_all_that_a_comparison_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named where it differs, shown under its plain name, refused by --strict, and parts two systems."""
    made = Fact("cut", "how long texts are cut", ("config", "data.cut"))
    monkeypatch.setattr(fields, "FACTS", (*fields.FACTS, made))
    one, two = record(), record()
    one["config"]["data.cut"], two["config"]["data.cut"] = "at the end", "in the middle"
    found = compared(one, two)
    assert [(each.field, each.weight) for each in found.differences] == [("cut", "unfair")]
    assert fairness_lines(found)[1] == "  how long texts are cut: at the end (a); in the middle (b)"
    assert refused(found.differences)
    del two["config"]["data.cut"]
    assert [(each.field, each.weight) for each in compared(one, two).differences] == [("cut", "unknown")]


def test_a_scaled_fact_does_not_part_a_series_of_device_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def kin(scaled: bool) -> set[str]:
        made = Fact("shares", "shares of the data", ("method", "warmup_rule"), scaled)
        monkeypatch.setattr(fields, "FACTS", (*fields.FACTS, made))
        rules = (record(method={"warmup_rule": rule}) for rule in ("a tenth", "a fifth"))
        return {entry(Record(sealed(each), Path("record.json"))).kin for each in rules}

    assert len(kin(scaled=False)) == 2
    monkeypatch.undo()
    assert len(kin(scaled=True)) == 1
