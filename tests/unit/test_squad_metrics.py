"""SQuAD's metrics: worked by hand, against an oracle that tries everything, and the official numbers."""

from __future__ import annotations

import json
import math
import re
import string
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertkit.data.tasks.squad.metrics import normalise, score_squad
from bertkit.data.tasks.squad.reader import Paragraph, Question, ReferenceAnswer, read_squad
from bertkit.errors import UserError


def ask(**references: tuple[str, ...]) -> list[Paragraph]:
    """One paragraph; each question by its id with its reference answers, none: it has no answer."""
    questions = [
        Question(name, f"{name}?", tuple(ReferenceAnswer(text, 0) for text in texts), not texts)
        for name, texts in references.items()
    ]
    return [Paragraph("Title", "Some context.", tuple(questions))]


# Normalising


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Normans", "normans"),
        ("  an  apple,\ta\nday ", "apple day"),
        ("U.S.A.", "usa"),
        ("theory of a-theism", "theory of atheism"),  # articles are whole words, and go after the punctuation
        ("the 'the' THE", ""),
        ("«the» – an", "« » –"),  # punctuation is ASCII's
        ("the_x", "thex"),
        ("naïve ÉCOLE\u00a0a\u2003b", "naïve école b"),
        ("", ""),
    ],
)
def test_normalising(text: str, wanted: str) -> None:
    assert normalise(text) == wanted


@given(st.text() | st.text(" aAnthe.,'-x"))
def test_normalising_is_what_the_words_say(text: str) -> None:
    kept = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    assert normalise(text) == " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())


# Version 1.1, by hand


@pytest.mark.parametrize(
    ("said", "references", "exact", "f1"),
    [
        ("The Normans!", ("normans",), 100, 100),
        ("in the year 1066", ("1066",), 0, 50),  # precision 1/3, recall 1
        ("new new york", ("new york york",), 0, 200 / 3),  # bags: new and york once each
        ("york", ("new york", "old york city", "paris"), 0, 200 / 3),  # the best reference counts
        ("paris", ("new york", "Paris"), 100, 100),
        ("", ("paris",), 0, 0),
        ("the", ("a",), 100, 0),  # nothing is left of either: the official script says 1 and 0
    ],
)
def test_version_1_by_hand(said: str, references: tuple[str, ...], exact: float, f1: float) -> None:
    found = score_squad(ask(q=references), {"q": said})
    assert found.metrics == pytest.approx({"exact_match": exact, "f1": f1})
    assert (found.examples, found.missing, found.unknown) == (1, (), ())


def test_missing_and_unknown_ids() -> None:
    found = score_squad(ask(one=("x",), two=("y",), three=("z",), four=("w",)), {"four": "w", "two": "y", "five": "x"})
    assert found.metrics == {"exact_match": 50.0, "f1": 50.0}
    assert (found.examples, found.missing, found.unknown) == (4, ("one", "three"), ("five",))


def test_version_1_needs_answers() -> None:
    with pytest.raises(UserError, match=r"question 'two' has no reference answer; squad \(1\.1\) needs one"):
        score_squad(ask(one=("x",), two=()), {"one": "x"})


def test_nothing_to_score_is_zero() -> None:
    assert score_squad([], {}).metrics == {"exact_match": 0.0, "f1": 0.0}
    assert score_squad([], {}, version2=True).metrics == {}


# Version 2.0, by hand

FIVE = ask(a=("the cat",), b=("two dogs", "dogs"), c=("bird",), d=(), e=())
SAID = {"a": "cat", "b": "three dogs", "c": "", "d": "", "e": "fish"}
ODDS = {"a": -3.0, "b": 0.5, "c": 4.0, "d": 2.0, "e": 1.5}
# exact and F1 as they are: a 1 1, b 0 2/3 (of "dogs"), c 0 0, d 1 1, e 0 0


def test_version_2_by_hand() -> None:
    found = score_squad(FIVE, SAID, version2=True).metrics
    assert found == pytest.approx({
        "exact": 100 * 2 / 5, "f1": 100 * (1 + 2 / 3 + 1) / 5, "total": 5,
        "HasAns_exact": 100 / 3, "HasAns_f1": 100 * (5 / 3) / 3, "HasAns_total": 3,
        "NoAns_exact": 50, "NoAns_f1": 50, "NoAns_total": 2,
    })  # fmt: skip
    assert list(found)[:3] == ["exact", "f1", "total"]


def test_version_2_with_odds_by_hand() -> None:
    found = score_squad(FIVE, SAID, ODDS, version2=True).metrics  # over 1.0: c, d and e are "no answer"
    assert found == pytest.approx({
        "exact": 100 * 3 / 5, "f1": 100 * (1 + 2 / 3 + 2) / 5, "total": 5,
        "HasAns_exact": 100 / 3, "HasAns_f1": 100 * (5 / 3) / 3, "HasAns_total": 3,
        "NoAns_exact": 100, "NoAns_f1": 100, "NoAns_total": 2,
        # from 2 right: a +1 at -3, b +0 or +2/3 at 0.5, e -1, d 0, c 0
        "best_exact": 100 * 3 / 5, "best_exact_thresh": -3.0,
        "best_f1": 100 * (3 + 2 / 3) / 5, "best_f1_thresh": 0.5,
    })  # fmt: skip


@pytest.mark.parametrize(("threshold", "exact"), [(-9.0, 2), (-3.0, 3), (0.5, 3), (1.5, 2), (9.0, 2)])
def test_the_threshold_is_the_users(threshold: float, exact: int) -> None:
    found = score_squad(FIVE, SAID, ODDS, True, threshold).metrics
    assert found["exact"] == pytest.approx(100 * exact / 5)  # odds equal to the threshold keep the prediction
    assert found["best_exact"] == 60.0


def test_a_group_that_is_empty_is_left_out() -> None:
    assert not any("NoAns" in name for name in score_squad(ask(a=("x",)), {"a": "x"}, version2=True).metrics)
    assert not any("HasAns" in name for name in score_squad(ask(a=()), {"a": "x"}, version2=True).metrics)


def test_references_of_which_nothing_is_left() -> None:
    """They are dropped; a question that has no other is answered by nothing, and still one with an answer."""
    paragraphs = ask(a=("the", "cat"), b=("the", "..."))
    assert score_squad(paragraphs, {"a": "an", "b": "The!"}, version2=True).metrics == {
        "exact": 50.0, "f1": 50.0, "total": 2, "HasAns_exact": 50.0, "HasAns_f1": 50.0, "HasAns_total": 2,
    }  # fmt: skip


def test_the_search_goes_by_the_raw_text() -> None:
    """A prediction "the" is right where there is no answer, yet the official search takes it for an answer."""
    found = score_squad(ask(a=()), {"a": "the"}, {"a": -1.0}, version2=True).metrics
    assert (found["exact"], found["best_exact"], found["best_exact_thresh"]) == (100.0, 100.0, 0.0)
    found = score_squad(ask(a=(), b=("x",)), {"a": "the", "b": "x"}, {"a": -2.0, "b": -1.0}, version2=True).metrics
    assert (found["exact"], found["best_exact"], found["best_exact_thresh"]) == (100.0, 50.0, 0.0)


def test_among_equal_odds_the_order_of_the_file_decides() -> None:
    paragraphs = ask(a=("x",), b=())
    said = {"a": "x", "b": "y"}
    first = score_squad(paragraphs, said, {"a": 0.5, "b": 0.5}, version2=True).metrics
    second = score_squad(paragraphs, said, {"b": 0.5, "a": 0.5}, version2=True).metrics
    assert (first["best_exact"], first["best_exact_thresh"]) == (100.0, 0.5)
    assert (second["best_exact"], second["best_exact_thresh"]) == (50.0, 0.0)


def test_version_2_counts_a_missing_id_as_wrong_at_every_threshold() -> None:
    found = score_squad(ask(a=("x",), b=(), c=()), {"a": "x", "c": ""}, dict.fromkeys("abc", 9.0), True)
    assert found.missing == ("b",)
    assert found.metrics["exact"] == pytest.approx(100 / 3)  # a is turned into "no answer"; c is right; b is missing
    assert found.metrics["NoAns_exact"] == 50.0
    assert (found.metrics["best_exact"], found.metrics["best_exact_thresh"]) == (pytest.approx(200 / 3), 9.0)


def test_odds_are_needed_for_each_prediction() -> None:
    for odds in ({}, {"b": 1.0}):
        with pytest.raises(UserError, match="the null odds lack 1 of the predictions' ids, first 'a'"):
            score_squad(ask(a=("x",), b=()), {"a": "x"}, odds, version2=True)
    score_squad(ask(a=("x",), b=()), {"a": "x"}, {"a": 1.0, "of no question": 0.0}, version2=True)


# Version 2.0, against an oracle that tries every threshold

words = st.sampled_from(["cat", "two cats", "old cat", "dog", "the dog"])
entries = st.lists(
    st.tuples(st.lists(words, max_size=3), words | st.just(""), st.integers(-40, 40).map(lambda n: n / 8)),
    min_size=1,
    max_size=8,
    unique_by=lambda entry: entry[2],  # among equals the official search depends on the order
)


def right(references: list[str], said: str) -> tuple[float, float]:
    """Exact match and F1, in the words of the definition."""
    wanted = [normalise(text).split() for text in references] or [[]]
    told = normalise(said).split()
    best = 0.0
    for bag in wanted:
        left, same = list(bag), 0
        for word in told:
            if word in left:
                left.remove(word)
                same += 1
        best = max(best, 2 * same / (len(bag) + len(told)) if bag and told else float(bag == told))
    return float(told in wanted), best


@settings(deadline=None)
@given(entries, st.integers(-40, 40).map(lambda n: n / 8))
@example([(["cat"], "dog", 0.0), ([], "dog", 1.0)], 1.0)
def test_version_2_against_trying_everything(drawn: list[tuple[list[str], str, float]], threshold: float) -> None:
    paragraphs = ask(**{f"q{at}": tuple(references) for at, (references, _, _) in enumerate(drawn)})
    said = {f"q{at}": text for at, (_, text, _) in enumerate(drawn)}
    odds = {f"q{at}": value for at, (_, _, value) in enumerate(drawn)}
    found = score_squad(paragraphs, said, odds, True, threshold).metrics

    def mean(which: int, limit: float) -> float:
        each = [right(refs, "" if value > limit else text)[which] for refs, text, value in drawn]
        return 100 * sum(each) / len(each)

    for which, name in enumerate(("exact", "f1")):
        assert found[name] == pytest.approx(mean(which, threshold))
        best = max(mean(which, limit) for limit in (-math.inf, *odds.values()))
        assert found[f"best_{name}"] == pytest.approx(best)
        at = found[f"best_{name}_thresh"]
        assert mean(which, at) == pytest.approx(best) or (at == 0.0 and mean(which, -math.inf) == pytest.approx(best))


# The official numbers


@pytest.mark.parametrize(
    ("name", "exact", "f1", "missing"),
    [
        ("v1.1_logistic_baseline.json", 40.14191106906339, 50.98153647324461, 13),
        ("v1.1_bert-tiny_tf1.json", 37.776726584673604, 50.62683542311178, 0),
    ],
)
def test_the_official_scripts_numbers(name: str, exact: float, f1: float, missing: int, real_data: Path) -> None:
    folder = real_data / "squad"
    if not (folder / "predictions" / name).exists():
        pytest.skip(f"no {name} in {folder}")
    paragraphs = list(read_squad(folder / "dev-v1.1.json"))
    predictions = json.loads((folder / "predictions" / name).read_text(encoding="utf-8"))
    began = time.process_time()
    found = score_squad(paragraphs, predictions)
    assert time.process_time() - began < 2.5
    assert found.metrics == pytest.approx({"exact_match": exact, "f1": f1}, abs=1e-9, rel=0)
    assert (found.examples, len(found.missing)) == (10_570, missing)
