"""`bertkit.data.tasks.squad.decoding`: the spans that the rules allow, best first, against a search of all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.features import Features
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_part
from bertkit.data.tasks.squad.decoding import decode, window_spans
from bertkit.data.tasks.squad.metrics import normalise, score_squad
from bertkit.data.tasks.squad.reader import Paragraph, read_squad
from bertkit.data.tasks.squad.windows import OUTSIDE, encode_squad
from bertkit.data.tasks.task import AnswerRules, Shape
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary
from squad_files import CONTEXT, paragraph, reviews, write_squad

EVERYTHING = 10_000


@pytest.fixture(scope="module")
def vocabulary(sample_dir: Path) -> Vocabulary:
    return read_vocabulary(sample_dir / "sample" / "vocab.txt")


@pytest.fixture(scope="module")
def long(vocabulary: Vocabulary) -> tuple[list[Paragraph], Features]:
    asked = [paragraph(CONTEXT, ("is good ?", ()), ("is the hero bold ?", ()))]
    return asked, encode_squad(asked, vocabulary, Shape(20, doc_stride=5), learn=False)


def logits(features: Features, seed: int) -> dict[str, np.ndarray]:
    stream = np.random.default_rng(seed)
    return {
        name: stream.normal(size=len(features.input_ids)).astype(np.float32) for name in ("start_logits", "end_logits")
    }


def all_spans(
    context: str, features: Features, outputs: dict[str, np.ndarray], window: int, longest: int
) -> list[tuple[float, str]]:
    """Every allowed span of a window by plain loops, best first."""
    base, end = int(features.cu_seqlens[window]), int(features.cu_seqlens[window + 1])
    found = []
    for a in range(base, end):
        for b in range(a, min(a + longest, end)):
            outside = features.notes["start"][a] == OUTSIDE or features.notes["start"][b] == OUTSIDE
            if outside or not features.notes["max_context"][a]:
                continue
            score = float(outputs["start_logits"][a]) + float(outputs["end_logits"][b])
            found.append((score, context[features.notes["start"][a] : features.notes["end"][b]]))
    return sorted(found, key=lambda one: -one[0])


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=40)
def test_spans_of_a_window_are_all_that_are_allowed(
    long: tuple[list[Paragraph], Features], seed: int, longest: int
) -> None:
    asked, features = long
    outputs = logits(features, seed)
    for window in range(len(features)):
        found = window_spans(asked[0].context, features, outputs, window, AnswerRules(EVERYTHING, longest))
        wanted = all_spans(asked[0].context, features, outputs, window, longest)
        assert [span.text for span in found] == [text for _, text in wanted]
        assert [span.score for span in found] == pytest.approx([score for score, _ in wanted])


@given(st.integers(0, 10_000))
@settings(max_examples=40)
def test_the_best_is_the_best_over_all_windows(long: tuple[list[Paragraph], Features], seed: int) -> None:
    asked, features = long
    outputs = logits(features, seed)
    found = decode(asked, features, outputs, AnswerRules(EVERYTHING, 8), null_answers=False)
    for number, one in enumerate(found):
        own = np.flatnonzero(features.notes["question"] == number)
        best = max(all_spans(CONTEXT, features, outputs, window, 8)[0] for window in own)
        assert one.best == best[1]
        texts = [span.text for span in one.n_best]
        assert len(set(texts)) == len(texts)
        assert [span.score for span in one.n_best] == sorted((span.score for span in one.n_best), reverse=True)
        assert sum(span.probability for span in one.n_best) == pytest.approx(1)
        assert all(CONTEXT[span.start : span.end] == span.text for span in one.n_best)
        assert one.null_odds is None


def test_only_the_n_best_starts_and_ends_are_considered(vocabulary: Vocabulary) -> None:
    asked = [paragraph("the plot is good", ("is good ?", ()))]
    features = encode_squad(asked, vocabulary, Shape(32), learn=False)
    outputs = {name: np.full(len(features.input_ids), -9, np.float32) for name in ("start_logits", "end_logits")}
    outputs["start_logits"][[0, 8]] = 5, 4  # [CLS] is no piece of the paragraph, yet one of the two best
    outputs["end_logits"][[1, 8]] = 5, 4
    (found,) = decode(asked, features, outputs, AnswerRules(n_best=2), null_answers=False)
    assert [span.text for span in found.n_best] == ["good"]
    (found,) = decode(asked, features, outputs, AnswerRules(n_best=1), null_answers=False)
    assert (found.best, [span.text for span in found.n_best]) == ("", [""])


@pytest.mark.parametrize(
    ("null", "threshold", "said"), [(3.0, 0.0, ""), (1.0, 0.0, "good"), (3.0, 1.5, "good"), (1.0, -1.5, "")]
)
def test_no_answer_where_it_is_likelier_by_the_threshold(
    vocabulary: Vocabulary, null: float, threshold: float, said: str
) -> None:
    asked = [paragraph("the plot is good", ("is good ?", ()))]
    features = encode_squad(asked, vocabulary, Shape(32), learn=False)
    outputs = {name: np.full(len(features.input_ids), -9, np.float32) for name in ("start_logits", "end_logits")}
    for values in outputs.values():
        values[0], values[8] = null / 2, 1.0
    (found,) = decode(asked, features, outputs, AnswerRules(null_threshold=threshold), null_answers=True)
    assert found.null_odds == pytest.approx(null - 2)
    assert found.best == said
    assert {span.text for span in found.n_best} >= {"", "good"}


def test_the_null_score_is_the_smallest_of_all_windows(long: tuple[list[Paragraph], Features]) -> None:
    asked, features = long
    outputs = logits(features, 3)
    first = features.cu_seqlens[:-1]
    found = decode(asked, features, outputs, AnswerRules(), null_answers=True)
    for number, one in enumerate(found):
        own = features.notes["question"] == number
        least = (outputs["start_logits"][first] + outputs["end_logits"][first])[own].min()
        best = max(span.score for span in one.n_best if span.text)
        assert one.null_odds == pytest.approx(least - best, abs=1e-6)


# The task: from a file to scores and files


@pytest.mark.parametrize("name", ["squad", "squad2"])
def test_answers_are_scored_and_written(vocabulary: Vocabulary, tmp_path: Path, name: str) -> None:
    task = find_task(name)
    held = reviews(4, version2=name == "squad2")
    path = write_squad(tmp_path / "dev.json", held, version2=name == "squad2")
    part = read_part(task, path, "dev", task.splits["dev"][0], vocabulary, Shape(40))
    outputs = {key: np.full(len(part.features.input_ids), -5, np.float32) for key in ("start_logits", "end_logits")}
    for window, owner in enumerate(part.features.notes["question"].tolist()):
        question = held[owner // 2].questions[owner % 2]
        base = int(part.features.cu_seqlens[window])
        own = slice(base, int(part.features.cu_seqlens[window + 1]))
        at = question.answers[0].start if question.answers else OUTSIDE
        place = base + int(np.flatnonzero(part.features.notes["start"][own] == at)[0])
        for values in outputs.values():
            values[place] = 5
    answered = task.format.answer(task, part, outputs, AnswerRules())
    assert answered.metrics["f1"] == 100
    main = answered.write(tmp_path / "out", "-dev")
    said = json.loads(main.read_text())
    assert main.name == "predictions-dev.json"
    assert said == {q.id: q.answers[0].text if q.answers else "" for one in held for q in one.questions}
    best = json.loads((tmp_path / "out" / "nbest_predictions-dev.json").read_text())
    assert {key: entries[0]["text"] for key, entries in best.items()} == said
    assert set(best["0-0"][0]) == {"text", "probability", "start_logit", "end_logit"}
    odds = tmp_path / "out" / "null_odds-dev.json"
    assert odds.exists() == (name == "squad2")
    if name == "squad2":
        assert {key: value > 0 for key, value in json.loads(odds.read_text()).items()} == {
            key: not text for key, text in said.items()
        }


def test_a_file_without_answers_is_answered_but_not_scored(vocabulary: Vocabulary, tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    qas = [{"id": "one", "question": "the plot ?"}]
    path.write_text(json.dumps({"data": [{"title": "t", "paragraphs": [{"context": "the plot is good", "qas": qas}]}]}))
    task = find_task("squad")
    part = read_part(task, path, "test", task.splits["test"][0], vocabulary, Shape(32))
    answered = task.format.answer(task, part, logits(part.features, 1), AnswerRules())
    assert answered.metrics == {}
    assert set(json.loads(answered.write(tmp_path, "").read_text())) == {"one"}


# Real data

NOT_AT_PIECES = {"56dfa1d34a1a83140091ebd4"}  # all three references are "four" of "four-tier", offset within a piece


@pytest.mark.slow
def test_logits_at_the_gold_span_score_100(real_data: Path) -> None:
    """An oracle's logits give every gold answer that begins and ends with a piece; the one that does not is listed."""
    vocabulary = read_vocabulary(real_data / "vocab" / "bert-base-uncased-vocab.txt")
    held = list(read_squad(real_data / "squad" / "dev-v1.1.json"))
    features = encode_squad(held, vocabulary, Shape(384), learn=False)
    outputs = {name: np.full(len(features.input_ids), -10, np.float32) for name in ("start_logits", "end_logits")}
    unfit = {
        question.id
        for number, (context, question) in enumerate((one.context, q) for one in held for q in one.questions)
        if not _point(features, outputs, number, context, [(a.start, a.text) for a in question.answers])
    }
    assert unfit == NOT_AT_PIECES
    found = decode(held, features, outputs, AnswerRules(longest=384), null_answers=False)
    fitting = [Paragraph(p.title, p.context, tuple(q for q in p.questions if q.id not in unfit)) for p in held]
    metrics = score_squad(fitting, {one.id: one.best for one in found if one.id not in unfit}).metrics
    assert metrics == {"exact_match": 100.0, "f1": 100.0}


def _point(
    features: Features, outputs: dict[str, np.ndarray], number: int, context: str, answers: list[tuple[int, str]]
) -> bool:
    """Raise the logits of the first answer that one window holds from its first to its last piece."""
    notes, owners = features.notes, features.notes["question"]
    first, behind = np.searchsorted(owners, [number, number + 1])
    for start, text in answers:
        for window in range(first, behind):
            own = slice(features.cu_seqlens[window], features.cu_seqlens[window + 1])
            starts, ends = notes["start"][own], notes["end"][own]
            a = np.flatnonzero((starts <= start) & (ends > start) & notes["max_context"][own])
            b = np.flatnonzero((starts < start + len(text)) & (ends >= start + len(text)))
            if len(a) and len(b) and normalise(context[starts[a[0]] : ends[b[-1]]]) == normalise(text):
                outputs["start_logits"][own][a[0]] = outputs["end_logits"][own][b[-1]] = 10
                return True
    return False
