"""`bertkit client` as typed, against a small server in this process: answers and scores are those without a server."""

from __future__ import annotations

import io
import itertools
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.cli.main import main
from bertkit.console import Display
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_part
from bertkit.data.tasks.sample import vocabulary as sample_vocabulary
from bertkit.data.tasks.task import AnswerRules, Shape
from bertkit.distributed.world import World
from bertkit.files.disk import write_json
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.training.evaluation import answer
from inference_server import (
    BERT,
    CLASSIFIER,
    QA,
    QA_TEXTS,
    SPANS,
    TEXTS,
    InferenceServer,
    StandInModel,
    classes,
    inference_server,
    nvidia,
    spans,
    text_labels,
)
from squad_files import reviews, write_squad

Typed = Callable[..., tuple[int, str, list[str]]]
CONFIG = ModelConfig(16, 2, 2, 32, vocab_size=len(sample_vocabulary()), max_position_embeddings=64)


@pytest.fixture
def typed(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """`typed("squad", URL, …)` -> (exit code, stdout, lines of stderr), in an empty folder with a model and a file."""
    monkeypatch.chdir(tmp_path)
    write_squad(Path("dev.json"), reviews(12))
    write_squad(Path("dev2.json"), reviews(12, version2=True), version2=True)
    Path("run").mkdir()
    write_json(Path("run/config.json"), to_mapping(CONFIG, Head("span", 2), ()))
    Path("run/vocab.txt").write_text("\n".join(sample_vocabulary()) + "\n", encoding="utf-8")

    def run(*words: str) -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as end:
            main(["client", *words])
        shown = capsys.readouterr()
        return int(str(end.value.code or 0)), shown.out, shown.err.splitlines()

    return run


@pytest.fixture
def server() -> Iterator[InferenceServer]:
    with inference_server(qa=QA, classes=CLASSIFIER, texts=TEXTS, questions=QA_TEXTS) as made:
        yield made


class Local:
    """The stand-in's function as an engine, each sequence by itself and without padding."""

    def __init__(self, compute: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]]) -> None:
        self.compute = compute

    def predict(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        bounds, found = batch["cu_seqlens"], []
        for start, end in itertools.pairwise(bounds):
            one = {name: batch[name][None, start:end] for name in ("input_ids", "token_type_ids")}
            found.append(self.compute({**one, "attention_mask": np.ones((1, end - start), np.int64)}))
        return {name: np.concatenate([one[name][0] for one in found]) for name in found[0]}

    def gather(self, rows: np.ndarray) -> np.ndarray:
        return rows


def without_server(file: Path, task_name: str, length: int) -> tuple[dict[str, float], dict[str, Any]]:
    """(metrics, predictions) of the same function and the same rules, as `bertkit evaluate` makes them."""
    task, known = find_task(task_name), read_vocabulary(Path("run/vocab.txt"))
    shape = Shape(seq_length=length, rows=0, doc_stride=8, query_length=64, strict=False)
    part = read_part(task, file, "dev", task.splits["dev"][0], known, shape, None, lambda *told: None)
    rules = AnswerRules(n_best=20, longest=30, null_threshold=0.0)
    found = answer(Local(spans), task, part, rules, 4, World(), Display(quiet=True))  # type: ignore[arg-type]
    return dict(found.metrics), json.loads(found.write(Path("own"), "").read_text())


SHAPES = ("-s", "32", "--set", "data.doc_stride=8")


@pytest.mark.parametrize("size", ["1", "5"])
@pytest.mark.parametrize(("file", "task"), [("dev.json", "squad"), ("dev2.json", "squad2")])
def test_squads_scores_are_those_without_a_server(
    typed: Typed, server: InferenceServer, file: str, task: str, size: str
) -> None:
    metrics, predictions = without_server(Path(file), task, 32)
    code, out, errors = typed(
        "squad", server.url, "--model", "qa", "--run", "run", "-t", task, "--file", file, *SHAPES, "-b", size, "-o",
        "out", "--json",
    )  # fmt: skip
    assert code == 0, errors
    made = json.loads(out)
    assert made["metrics"] == metrics
    assert 0 < made["metrics"]["f1"] < 100
    assert json.loads(Path(made["predictions"]).read_text()) == predictions
    assert (made["questions"], made["windows"] >= 24) == (24, True)
    assert server.counts.sequences == made["windows"]
    assert server.counts.binary == server.counts.requests


def test_a_vocabulary_is_enough_for_squad(typed: Typed, server: InferenceServer) -> None:
    code, out, errors = typed("squad", server.url, "--model", "qa", "--vocab", "run/vocab.txt", "--file", "dev.json",
                              *SHAPES)  # fmt: skip
    assert code == 0, errors
    metrics, _ = without_server(Path("dev.json"), "squad", 32)
    assert (
        out
        == f"dev.json: 24 questions in {server.counts.sequences} windows: "
        + "  ".join(f"{name} {value:.4f}" for name, value in metrics.items())
        + "\n"
    )


@pytest.mark.parametrize("length", [0, 40])
def test_nvidias_tensors_are_known(typed: Typed, length: int) -> None:
    with inference_server(bert=nvidia(QA, length)) as server:
        code, out, errors = typed("squad", server.url, "--run", "run", "-t", "squad", "--file", "dev.json", *SHAPES,
                                  "--json")  # fmt: skip
    assert code == 0, errors
    assert json.loads(out)["metrics"] == without_server(Path("dev.json"), "squad", 32)[0]
    assert {shape[1] for shape in server.counts.shapes} == {40} if length else True
    assert f"model: bert, the only one of token ids at {server.url}" in errors


def test_a_server_without_raw_tensors_gets_json(typed: Typed) -> None:
    with inference_server(qa=QA) as server:
        server.extensions = []
        code, out, _ = typed("squad", server.url, "--run", "run", "-t", "squad", "--file", "dev.json", *SHAPES,
                             "--json")  # fmt: skip
    assert (code, server.counts.binary) == (0, 0)
    assert json.loads(out)["metrics"] == without_server(Path("dev.json"), "squad", 32)[0]


def test_several_requests_are_in_flight(typed: Typed, server: InferenceServer) -> None:
    server.delay = 0.02
    words = ("squad", server.url, "--model", "qa", "--run", "run", "-t", "squad", "--file", "dev.json", *SHAPES, "-q")
    assert typed(*words, "-b", "2", "--concurrency", "3")[0] == 0
    assert server.counts.most_in_flight == 3
    server.counts.most_in_flight = 0
    assert typed(*words, "-b", "2", "--concurrency", "1")[0] == 0
    assert server.counts.most_in_flight == 1


def test_a_full_queue_is_waited_for(typed: Typed, server: InferenceServer) -> None:
    server.busy = 5
    code, out, errors = typed("squad", server.url, "--model", "qa", "--run", "run", "-t", "squad", "--file", "dev.json",
                              *SHAPES, "--json")  # fmt: skip
    assert code == 0, errors
    assert json.loads(out)["metrics"] == without_server(Path("dev.json"), "squad", 32)[0]


ASK = ("--question", "the plot is ?", "--context", "the plot is good and the cast was dull .")


def test_a_question_to_token_ids_and_to_texts(typed: Typed, server: InferenceServer) -> None:
    code, out, errors = typed(
        "ask", server.url, "--model", "qa", "--run", "run", "-t", "squad", "-s", "32", *ASK, "--json"
    )
    assert code == 0, errors
    found = json.loads(out)
    assert found["question"] == "the plot is ?"
    assert found["answer"] in ASK[3]
    assert found["answer"] == found["n_best"][0]["text"]
    code, out, errors = typed("ask", server.url, "--model", "questions", *ASK[:2], "--context", "it was dull")
    assert (code, out, errors) == (0, "dull\n", [])
    assert json.loads(typed("ask", server.url, "--model", "questions", *ASK, "--json")[1])["answer"] == "."
    del server.models["texts"]
    assert typed("ask", server.url, *ASK)[2] == [f"model: questions, the only one of texts at {server.url}"]


def test_texts_are_classified_by_a_model_of_texts(
    typed: Typed, server: InferenceServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert typed("predict", server.url, "--model", "texts", "--text", "a fine film indeed")[1] == (
        "a fine film indeed\tlong\t0.1800\n"
    )
    Path("lines.txt").write_text("good\n\nnot a bad one\n", encoding="utf-8")
    code, out, _ = typed("predict", server.url, "lines.txt", "--model", "texts", "--json", "-b", "1")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [(one["text"], one["label"]) for one in found] == [("good", "short"), ("not a bad one", "long")]
    monkeypatch.setattr("sys.stdin", io.StringIO("dull\n"))
    assert typed("predict", server.url, "-", "--model", "texts")[1] == "dull\tshort\t0.0400\n"


def test_a_second_text_may_be_left_out(typed: Typed) -> None:
    """As Triton's model of texts has one that is optional."""
    seen: list[list[str]] = []

    def compute(inputs: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        seen.append(sorted(inputs))
        return text_labels(inputs)

    both = tuple((name, "BYTES", [-1, 1]) for name in ("text", "text_pair"))
    with inference_server(pairs=StandInModel(both, TEXTS.outputs, compute)) as server:
        assert typed("predict", server.url, "--text", "a bold film and long")[1].endswith("\tlong\t0.2000\n")
        out = typed("predict", server.url, "--text", "bold", "--text-pair", "a", "--json")[1]
        assert json.loads(out) == {"text": "bold", "text_pair": "a", "label": "short", "score": pytest.approx(0.04)}
    assert seen == [["text"], ["text", "text_pair"]]
    assert server.counts.shapes == [(1, 1), (1, 1)]


def test_texts_are_classified_by_token_ids_with_the_tasks_labels(typed: Typed, server: InferenceServer) -> None:
    words = ("predict", server.url, "--model", "classes", "--run", "run", "-t", "sst2", "-s", "32", "--json")
    code, out, errors = typed(*words, "--text", "the plot is good")
    assert code == 0, errors
    found = json.loads(out)
    known = read_vocabulary(Path("run/vocab.txt"))
    ids = np.array([[known.ids[piece] for piece in "[CLS] the plot is good [SEP]".split()]])
    logits = classes({"input_ids": ids, "token_type_ids": ids * 0, "attention_mask": ids * 0 + 1})["logits"][0]
    weights = np.exp(logits - logits.max())
    assert found["label"] == find_task("sst2").labels[int(logits.argmax())]
    assert found["probability"] == pytest.approx(float((weights / weights.sum()).max()), rel=1e-5)


def test_a_file_of_the_task_gives_its_submission(typed: Typed, server: InferenceServer) -> None:
    Path("test.tsv").write_text("index\tsentence\n0\tthe plot is good\n1\tthe cast was dull\n", encoding="utf-8")
    code, out, errors = typed("predict", server.url, "test.tsv", "--model", "classes", "--run", "run", "-t", "sst2",
                              "-s", "32", "-o", "out", "--json")  # fmt: skip
    assert code == 0, errors
    made = json.loads(out)
    assert made["examples"] == 2
    assert Path(made["predictions"]).read_text().splitlines()[0] == "index\tprediction"


def test_models_are_listed(typed: Typed, server: InferenceServer) -> None:
    code, out, _ = typed("models", server.url)
    assert code == 0
    assert "qa: input_ids, attention_mask, token_type_ids -> start_logits, end_logits (stand-in)" in out.splitlines()
    assert [one["name"] for one in json.loads(typed("models", server.url, "--json")[1])] == [
        "qa", "classes", "texts", "questions",
    ]  # fmt: skip


SQUAD = ("--run", "run", "-t", "squad", "--file", "dev.json", "-s", "32")


def test_a_server_that_is_not_there_is_one_line(typed: Typed) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        code, _, errors = typed("squad", url, *SQUAD)
        assert (code, len(errors)) == (2, 1)
        assert errors[0].startswith(f"bertkit: {url} does not answer: ")
        assert errors[0].endswith("; start the server, or check the address")
        code, _, errors = typed("squad", url, *SQUAD, "--wait", "0.3")
        assert (code, len(errors)) == (2, 1)
        assert "0.3 s long; start the server, or raise --wait" in errors[0]


FAULTS: dict[tuple[str, ...], str] = {
    ("squad", "--model", "qaa", *SQUAD): "has no model 'qaa'; did you mean qa?",
    ("squad", *SQUAD): "has 2 models of token ids: qa, classes; name one with --model",
    ("squad", "--model", "classes", *SQUAD): "has the outputs logits, not start_logits and end_logits",
    ("squad", "--model", "texts", *SQUAD): "takes texts, not token ids",
    ("squad", "--model", "qa", "--file", "dev.json"): "there is no vocabulary to encode texts with; give --run RUN",
    ("squad", "--model", "qa", "--run", "run", "--file", "dev.json"): "run does not state the task; name it with -t",
    ("squad", "--model", "qa", "--run", "none", "-t", "squad", "--file", "dev.json"): "none",
    ("squad", "--model", "qa", "--run", "run", "-t", "squad", "--file", "absent.json"): "absent.json",
    ("squad", "--model", "classes", "--run", "run", "-t", "sst2", "--file", "dev.json", "-s", "32"): (
        "run was trained on sst2, which does not answer questions"
    ),
    ("ask", "--model", "texts", *ASK): "takes text, not question and context",
    ("ask", "--model", "qa", *ASK): "takes input_ids, attention_mask, token_type_ids, not question and context",
    ("ask", "--model", "qa", "--question", " ", "--context", "a"): "the question is empty",
    ("ask", "--model", "qa", "--question", "a"): "the context is empty",
    ("predict", "--model", "texts"): "what is to be classified is given nowhere; give FILE or --text",
    ("predict", "dev.json", "--model", "texts", "--text", "a"): "is given twice",
    ("predict", "--model", "texts", "--text", "a", "--text-pair", "b"): "an example has 2 texts, but texts takes text",
    ("predict", "--model", "classes", "--run", "run", "-t", "mrpc", "-s", "32", "--text", "a"): "is of pairs of texts",
    ("predict", "dev.json", "--model", "texts", "-o", "x"): "-o is for a file of the task",
    ("predict", "--model", "qa", "--run", "run", "-t", "squad", "-s", "32", "--text", "a"): "has no classes to predict",
}


@pytest.mark.parametrize("words", FAULTS, ids=["-".join(words)[:60] for words in FAULTS])
def test_a_fault_is_one_line(typed: Typed, server: InferenceServer, words: tuple[str, ...]) -> None:
    code, out, errors = typed(words[0], *([words[1], server.url][::-1] if words[1] == "dev.json" else
                                          [server.url, words[1]]), *words[2:])  # fmt: skip
    assert code == 2, (out, errors)
    assert len([line for line in errors if line.startswith("bertkit: ")]) == 1
    assert FAULTS[words] in errors[-1], errors


@pytest.mark.parametrize(
    "url", ["ftp://a", "http://", "http://a:b", "http://u@h:1", "http://h:1/?q", "", "http://[::1"]
)
def test_what_is_no_address_is_refused(typed: Typed, url: str) -> None:
    code, _, errors = typed("models", url)
    assert (code, len(errors)) == (2, 1)
    assert "is no address of a server; write it as http://127.0.0.1:8000" in errors[0]


def wrong(shape: tuple[int, ...]) -> StandInModel:
    return StandInModel(BERT, SPANS, lambda inputs: dict.fromkeys(("start_logits", "end_logits"), np.zeros(shape)))


WRONG: dict[str, tuple[StandInModel, str]] = {
    "shape": (wrong((1, 3)), "sent start_logits of shape [1, 3], not [8, "),
    "missing": (StandInModel(BERT, SPANS, lambda inputs: {"x": np.zeros(1)}), "sent no numbers as start_logits"),
    "names": (StandInModel((("a", "INT64", [-1]),), SPANS, spans), "has the inputs a, not input_ids"),
    "floats": (
        StandInModel(tuple((name, "FP32", shape) for name, _, shape in BERT), SPANS, spans), "input_ids of FP32",
    ),
    "short": (nvidia(QA, 16), "the server's model takes 16; cut them: -s 16"),
    "infinite": (
        StandInModel(BERT, SPANS, lambda i: dict.fromkeys(("start_logits", "end_logits"), i["input_ids"] * np.nan)),
        "have logits that are not finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_server_with_other_tensors_is_one_line(typed: Typed, case: str) -> None:
    model, words = WRONG[case]
    with inference_server(bert=model) as server:
        code, _, errors = typed("squad", server.url, *SQUAD, "-q", "--concurrency", "1", "-b", "8")
    assert (code, len(errors)) == (2, 1)
    assert words in errors[0]


def test_what_the_server_says_is_shown(typed: Typed, server: InferenceServer) -> None:
    server.fail_every = 1
    code, _, errors = typed("squad", server.url, "--model", "qa", *SQUAD)
    assert code == 2
    assert (
        f"{server.url} refuses a request to qa: HTTP 500, it failed; correct the request, or the server" in errors[-1]
    )


def test_another_server_is_no_fault_of_ours(typed: Typed, server: InferenceServer) -> None:
    server.extensions = None  # type: ignore[assignment]
    code, _, errors = typed("squad", server.url, *SQUAD)
    assert (code, len(errors)) == (2, 1)
    assert "does not speak the Open Inference Protocol" in errors[0]
