"""The pure parts of benchmarks/: official scores, fair rounds, ratios. They import no framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.mark.parametrize(
    ("file", "exact", "f1"),
    [
        ("v1.1_logistic_baseline.json", 40.14191106906339, 50.98153647324461),  # one question unanswered
        ("v1.1_bert-tiny_tf1.json", 37.776726584673604, 50.62683542311178),
    ],
)
def test_scores_equal_the_official_script(script: Any, real_data: Path, file: str, exact: float, f1: float) -> None:
    squad = script("squad_v1")
    predictions = json.loads((real_data / "squad/predictions" / file).read_text(encoding="utf-8"))
    found = squad.scores(squad.read(real_data / "squad/dev-v1.1.json"), predictions)
    assert found == {"exact_match": pytest.approx(exact, abs=1e-9), "f1": pytest.approx(f1, abs=1e-9)}


def test_the_best_span_lies_in_the_context_and_is_not_too_long(script: Any) -> None:
    squad = script("squad_v1")
    offsets = [None, (0, 3), (4, 7), (8, 11), None]
    starts, ends = np.array([9.0, 3, 0, 1, 9]), np.array([9.0, 0, 1, 5, 9])
    window = squad.Window(offsets, starts, ends)
    assert squad.best_text("one two six", [window]) == "one two six"  # not [CLS] (9 + 9), which is no context
    assert squad.best_text("one two six", [window], longest=2) == "six"
    assert squad.best_text("one two six", [squad.Window(offsets[::-1], -ends, -starts), window]) == "one two six"


@pytest.mark.parametrize("name", ["mrpc", "squad"])
def test_seeded_lengths_have_the_published_mean_and_quantiles(script: Any, name: str) -> None:
    shape = script("workloads").KINDS[name].lengths
    lengths = script("workloads").seeded_lengths(shape, 5000, np.random.default_rng(1))
    assert lengths.mean() == pytest.approx(shape.mean, rel=0.005)
    for share, tokens in shape.quantiles:
        assert np.quantile(lengths, share) == pytest.approx(tokens, rel=0.02)
    assert lengths.min() >= 3
    assert lengths.max() <= shape.limit


def test_with_50_steps_random_and_grouped_batches_are_the_same_examples(script: Any) -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 500)
    for one in script("workloads").plan(lengths, 8, 50, 1, 1):
        assert sorted(one.random.ravel()) == sorted(one.grouped.ravel())
        assert len(set(one.random.ravel())) == 400


def test_grouped_batches_hardly_need_padding_and_both_ways_hold_as_many_tokens(script: Any) -> None:
    lengths = np.random.default_rng(0).integers(5, 400, 2000)
    _, *rounds = script("workloads").plan(lengths, 32, 4, 3, 1)
    grouped = np.concatenate([lengths[one.grouped] for one in rounds])
    random = np.concatenate([lengths[one.random] for one in rounds])
    assert grouped.sum() / (grouped.max(axis=1) * 32).sum() > 0.97
    assert random.sum() / (random.max(axis=1) * 32).sum() < 0.6
    assert random.sum() == pytest.approx(grouped.sum(), rel=0.03)
    assert len({example for one in rounds for example in one.grouped.ravel()}) == 3 * 4 * 32


def test_ratios_are_of_times_per_real_token_in_the_same_round(script: Any) -> None:
    def entry(name: str, number: int, wall: float, tokens: int) -> dict[str, Any]:
        return {"competitor": name, "precision": "bf16", "round": number, "wall": wall, "cpu": 2 * wall, "steps": 2,
                "sequences": 8, "tokens": tokens, "flops": 100.0}  # fmt: skip

    rounds = [entry("a", 1, 1, 100), entry("b", 1, 3, 100), entry("a", 2, 2, 100), entry("b", 2, 2, 50)]
    made = script("report").summary(rounds, "a", {"bf16": 200.0})
    assert made["b"]["wall_ratio"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert made["a"]["mfu"] == {"median": 0.375, "min": 0.25, "max": 0.5}
    assert made["b"]["step_seconds"]["median"] == 1.25
    assert "2.50 (2.00..3.00)" in script("report").table(made, "a")


def test_the_allocator_is_set_for_those_who_ask_only(script: Any) -> None:
    competitors = script("competitors")
    plain = competitors.find("train", "hf-best", "eager")
    tuned = competitors.find("train", "hf-best+malloc", "eager")
    outer = {"MALLOC_TOP_PAD_": "1", "PATH": "/bin"}
    assert competitors.environment(plain, 2, outer) == {
        "PATH": "/bin", "OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"
    }  # fmt: skip
    assert competitors.environment(tuned, 2, outer)["MALLOC_TOP_PAD_"] != "1"
    assert (plain.attention, tuned.malloc, plain.malloc) == ("eager", True, False)
    with pytest.raises(SystemExit, match="no competitor 'hf-bets'"):
        competitors.find("train", "hf-bets", "eager")


def test_servers_are_compared_within_a_round(script: Any) -> None:
    """The machine was twice as slow in the second round, for both."""
    turns = {"a": [100.0, 50.0, 100.0], "b": [150.0, 80.0, 160.0]}
    made = {
        name: [dict.fromkeys(("tokens_per_second", "p50_ms"), rate) for rate in rates] for name, rates in turns.items()
    }
    found = script("servers").summary(made)
    assert (found["a"]["ratio"], found["b"]["ratio"], found["b"]["tokens_per_second"]) == (1, 1.6, 150)
    assert (found["b"]["ratio_smallest"], found["b"]["ratio_largest"]) == (1.5, 1.6)


def test_servers_are_named(script: Any) -> None:
    servers = script("servers")
    assert servers.options_by_name(['a=-d int8 --set "x=1 2"', "b="]) == {
        "a": ["-d", "int8", "--set", "x=1 2"],
        "b": [],
    }
    for wrong in (["-d int8"], ["=-d"], ["--set=1"], ["a=", "a=-d int8"]):
        with pytest.raises(servers.UserError):
            servers.options_by_name(wrong)
