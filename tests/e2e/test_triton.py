"""An exported repository in a real Triton server, asked by Triton's own client with binary tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import triton_server
from bertkit.conformance.fixtures import with_settings
from bertkit.data.tasks import find_task
from bertkit.data.tasks.metrics import probabilities
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.squad.decoding import decode
from bertkit.data.tasks.squad.reader import read_squad
from bertkit.data.tasks.task import AnswerRules, Shape
from bertkit.engine.registry import find
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.training.export_checks import in_order, padded
from conftest import Run
from exported import run_folder, small
from squad_files import reviews, write_squad

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(triton_server.absent()), reason=triton_server.absent()),
]
SHAPE = Shape(32, 40, doc_stride=8, query_length=8)
SETTINGS = {"seq_length": 32, "doc_stride": 8, "query_length": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    write_squad(sample_dir / "squad" / "dev-v2.0.json", reviews(20, version2=True), version2=True)
    return sample_dir


def asked(client: Any, model: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The answer to one request, whose tensors are sent and returned in binary."""
    from tritonclient.http import InferInput
    from tritonclient.utils import np_to_triton_dtype

    given = []
    for name, values in inputs.items():
        given.append(InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        given[-1].set_data_from_numpy(values, binary_data=True)
    answer = client.infer(model, given)
    return {one["name"]: answer.as_numpy(one["name"]) for one in answer.get_response()["outputs"]}


def texts(*rows: str) -> np.ndarray:
    return np.array([[row.encode()] for row in rows], np.object_)


def read(task: str, folder: Path, data: Path) -> Any:
    return read_split(find_task(task), data, "dev", read_vocabulary(folder / "vocab.txt"), SHAPE)[0]


@pytest.mark.parametrize("names", ["bertkit", "nvidia"])
def test_reviews(names: str, bertkit: Run, data: Path, tmp_path: Path) -> None:
    from tritonclient.http import InferenceServerClient
    from tritonclient.utils import InferenceServerException

    run_folder(tmp_path / "run", "sample", **SETTINGS)
    options = ("--option", "text=true", "--option", f"names={names}", "--option", "name=reviews")
    done = bertkit("export", "run", "-o", "out", "--format", "triton", *options, "--data-dir", data, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"] < 1e-5
    triton_server.with_stand_in(tmp_path / "out", "reviews")
    features = read("sample", tmp_path / "run", data).features
    lines = (data / "sample" / "dev.tsv").read_text().splitlines()[1:41]
    sentences = [line.split("\t")[0] for line in lines]
    engine = with_settings(find("cpu"), small(find_task("sample").head))
    wanted = [engine.predict(batch)["logits"] for batch in in_order(features)]
    kind = np.int64 if names == "bertkit" else np.int32
    ids, segments, mask = (
        ("input_ids", "token_type_ids", "attention_mask") if names == "bertkit" else
        ("input__0", "input__1", "input__2")
    )  # fmt: skip
    (tmp_path / "scratch").mkdir()
    with triton_server.triton_server(tmp_path / "out", tmp_path / "scratch") as where:
        client = InferenceServerClient(where)
        for batch, logits in zip(in_order(features), wanted, strict=True):
            rows = {name: values.astype(kind) for name, values in padded(batch).items()}
            given = {ids: rows["input_ids"], segments: rows["token_type_ids"], mask: rows["attention_mask"]}
            (found,) = asked(client, "reviews", given).values()
            np.testing.assert_allclose(found, logits, atol=1e-4)
        found = asked(client, "reviews_text", {"text": texts(*sentences)})
        shares = probabilities("classification", np.concatenate(wanted))
        assert [label.decode() for (label,) in found["label"]] == [str(row.argmax()) for row in shares]
        np.testing.assert_allclose(found["score"][:, 0], shares.max(1), atol=1e-4)
        with pytest.raises(InferenceServerException, match="unexpected inference input 'question'"):
            asked(client, "reviews_text", {"question": texts("what ?")})
        assert client.is_model_ready("reviews_text")
        client.close()


def test_questions(bertkit: Run, data: Path, tmp_path: Path) -> None:
    from tritonclient.http import InferenceServerClient

    run_folder(tmp_path / "run", "squad2", **SETTINGS)
    part = read("squad2", tmp_path / "run", data)
    engine = with_settings(find("cpu"), small(find_task("squad2").head))
    computed = [engine.predict(batch) for batch in in_order(part.features)]
    outputs = {name: np.concatenate([one[name] for one in computed]) for name in computed[0]}
    paragraphs = list(read_squad(part.file, 40))
    odds = sorted(one.null_odds or 0 for one in decode(paragraphs, part.features, outputs, AnswerRules(), True))
    threshold = round((odds[19] + odds[20]) / 2, 4)  # half of the questions have no answer then
    wanted = decode(paragraphs, part.features, outputs, AnswerRules(null_threshold=threshold), True)
    assert {bool(one.best) for one in wanted} == {True, False}
    options = ("--option", "text=true", "--option", "fused=true", "--set", f"answers.null_threshold={threshold}")
    done = bertkit("export", "run", "-o", "out", "--format", "triton", *options, "--data-dir", data)
    assert done.returncode == 0, done.stderr
    triton_server.with_stand_in(tmp_path / "out", "squad2")
    (tmp_path / "scratch").mkdir()
    with triton_server.triton_server(tmp_path / "out", tmp_path / "scratch") as where:
        client = InferenceServerClient(where)
        both = [(question.text, one.context) for one in paragraphs for question in one.questions]
        given = {"question": texts(*(one for one, _ in both)), "context": texts(*(other for _, other in both))}
        found = asked(client, "squad2_text", given)
        client.close()
    assert [answer.decode() for (answer,) in found["answer"]] == [one.best for one in wanted]
    for (_, context), answer, (start,), (end,) in zip(both, wanted, found["start"], found["end"], strict=True):
        assert context[start:end] == answer.best
