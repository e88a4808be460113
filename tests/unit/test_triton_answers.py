"""The text model that is copied into a Triton repository makes the tokens and the answers that bertkit makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.encoding import encode
from bertkit.data.tasks.metrics import probabilities
from bertkit.data.tasks.own.rows import RowFormat, said_of
from bertkit.data.tasks.squad.decoding import decode
from bertkit.data.tasks.squad.reader import Paragraph, Question
from bertkit.data.tasks.squad.windows import encode_squad
from bertkit.data.tasks.task import AnswerRules, Shape
from bertkit.model.tokenizer import tokenizer
from bertkit.model.vocabulary import SPECIAL, Vocabulary
from bertkit_triton import answering

PIECES = (*SPECIAL, *"a b c ab ##c ##b cab the film is good .".split(), "é")
VOCABULARY = Vocabulary(Path("vocab.txt"), PIECES, lower_case=True)
WORDS = st.lists(st.sampled_from(["a", "b", "AB", "abc", "the", "film,", "good.", "é", "xyzzy", "日本"]), max_size=40)
TEXTS = WORDS.map(" ".join)


def rules(head: str, **more: object) -> dict[str, object]:
    made = {"head": head, "seq_length": 16, "doc_stride": 4, "query_length": 5, "n_best": 6, "longest": 5}
    return (
        made | {"null_threshold": None, "temperature": 1.0, "labels": ["x", "y", "z"], "thresholds": [0.5] * 3} | more
    )


@given(TEXTS, TEXTS, st.booleans())
def test_texts_are_the_same_tokens(one: str, other: str, pair: bool) -> None:
    wanted = encode(VOCABULARY, [one], [other] if pair else None, {}, 16)
    made = answering.encode_texts(tokenizer(VOCABULARY), rules("classification"), [one], [other] if pair else None)
    assert made[0].ids == wanted.input_ids.tolist()
    assert made[0].types == wanted.token_type_ids.tolist()


@given(TEXTS, TEXTS, st.integers(0, 2**32), st.sampled_from([None, 0.0, -3.0, 3.0]))
def test_questions_have_the_same_windows_and_answers(
    question: str, context: str, seed: int, null: float | None
) -> None:
    said = rules("span", null_threshold=null)
    paragraph = Paragraph("", context, (Question("q", question, ()),))
    shape = Shape(16, doc_stride=4, query_length=5)
    features = encode_squad([paragraph], VOCABULARY, shape, learn=False)
    windows = answering.encode_question(tokenizer(VOCABULARY), said, question, context)
    assert [token for one in windows for token in one.ids] == features.input_ids.tolist()
    assert [kind for one in windows for kind in one.types] == features.token_type_ids.tolist()
    logits = np.random.default_rng(seed).normal(0, 3, (2, len(features.input_ids))).astype(np.float32)
    outputs = {"start_logits": logits[0], "end_logits": logits[1]}
    answer_rules = AnswerRules(n_best=6, longest=5, null_threshold=null or 0.0)
    (found,) = decode([paragraph], features, outputs, answer_rules, null is not None)
    for number, one in enumerate(windows):
        place = slice(features.cu_seqlens[number], features.cu_seqlens[number + 1])
        spare = np.full((2, 3), 99, np.float32)  # what stands at padding means nothing
        one.logits = list(np.concatenate([logits[:, place], spare], 1))
    made = answering.answer_question(said, context, windows)
    assert made["answer"] == [found.best]
    assert context[made["start"][0] : made["end"][0]] == found.best
    assert made["score"][0] == pytest.approx(next(span.probability for span in found.n_best if span.text == found.best))


def test_a_question_without_room_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no room in 6"):
        answering.encode_question(tokenizer(VOCABULARY), rules("span", seq_length=6), "a a a a a", "b")


@given(st.lists(st.floats(-9, 9, width=32), min_size=3, max_size=3), st.sampled_from(["classification", "multilabel"]))
def test_labels_are_those_of_own_data(logits: list[float], head: str) -> None:
    from bertkit.data.tasks import find_task

    task = find_task("mnli")
    own = RowFormat(kind=head, columns=None, temperature=1.7, thresholds=(0.2, 0.5, 0.9))  # type: ignore[call-arg]
    values = np.array([logits], np.float32)
    (wanted,) = said_of(task, own, values)
    one = answering.Tokens([], [], [values[0]])
    said = rules(head, temperature=1.7, thresholds=(0.2, 0.5, 0.9), labels=task.labels)
    made = answering.answer_texts(said, one)
    if head == "classification":
        assert made == {"label": [wanted["label"]], "score": [pytest.approx(wanted["probability"])]}
    else:
        assert made["labels"] == ["|".join(wanted["labels"])]
        assert made["scores"] == pytest.approx(list(probabilities("multilabel", values / 1.7)[0]))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 7))
def test_batches_hold_each_sequence_once_with_padding_behind_it(lengths: list[int], most: int) -> None:
    sequences = [answering.Tokens([number + 1] * length, [1] * length) for number, length in enumerate(lengths)]
    seen = []
    for together in answering.batches(sequences, most):
        assert len(together) <= most
        ids, mask, types = answering.padded(together)
        assert ids.shape == mask.shape == types.shape == (len(together), max(len(one.ids) for one in together))
        for row, one in enumerate(together):
            assert mask[row].tolist() == [1] * len(one.ids) + [0] * (ids.shape[1] - len(one.ids))
            assert ids[row][mask[row] > 0].tolist() == one.ids
            assert not ids[row][mask[row] == 0].any()
        seen += [one.ids[0] for one in together]
    assert sorted(seen) == list(range(1, len(lengths) + 1))
