"""`bertkit embed` as a user types it: embeddings equal to transformers', in files and on standard output; faults."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bertkit.data.tasks.sample import vocabulary
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from conftest import Run, assert_one_line_error

MODEL = ModelConfig(32, 3, 4, 64, vocab_size=len(vocabulary()), max_position_embeddings=128)
TEXTS = ("the plot was good", "a film", "bad")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    head = Head("pretraining", 2)
    (folder / "config.json").write_text(json.dumps(to_mapping(MODEL, head, ())))
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    write_arrays(folder / "model.safetensors", initial(MODEL, head, 1), {"format": "pt"})
    (tmp_path / "in.csv").write_text("label,text\n" + "".join(f"1,{text}\n" for text in TEXTS))
    return folder


def test_a_file_of_embeddings(bertkit: Run, tmp_path: Path, model: Path) -> None:
    pytest.importorskip("torch")
    done = bertkit("embed", model, "in.csv", "-d", "fp32", "--backend", "cpu", "-o", "out.npy")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "out.npy: 3 texts, 32 values each\n"
    assert "the text is taken from column text" in done.stderr
    found = np.load(tmp_path / "out.npy")
    assert (found.dtype, found.shape) == (np.float32, (3, 32))
    wanted = theirs(model, (-1,))
    assert np.abs(found - [states.mean(0) for states in wanted]).max() < 1e-5


def test_lines_on_standard_output(bertkit: Run, model: Path) -> None:
    words = ("embed", model, "-", "--backend", "null", "-d", "fp32", "-q", "--layers", "-1,-2")
    done = bertkit(*words, said="the plot\na film\n")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(one["text"], len(one["embedding"])) for one in found] == [("the plot", 64), ("a film", 64)]


@pytest.mark.slow
def test_tokens_and_several_layers(bertkit: Run, tmp_path: Path, model: Path) -> None:
    words = ("embed", model, "in.csv", "-d", "fp32", "--backend", "cpu", "-q", "--layers", "-1,0")
    assert bertkit(*words, "--pooling", "tokens", "-o", "out.npz", "--json").stdout == (
        '{"file": "out.npz", "texts": 3, "width": 64}\n'
    )
    with np.load(tmp_path / "out.npz") as found:
        assert np.abs(found["embeddings"] - np.concatenate(theirs(model, (-1, 0)))).max() < 1e-5
    lines = bertkit(*words, "--pooling", "tokens").stdout.splitlines()
    assert [feature["token"] for feature in json.loads(lines[2])["features"]] == ["[CLS]", "bad", "[SEP]"]
    done = bertkit(*words, "--pooling", "cls", "--normalise", "-o", "out.parquet")
    assert done.returncode == 0, done.stderr
    planned = bertkit(*words[:2], "in.csv", "--dry-run", "--layers", "-1,-2")
    assert "embeddings: mean pooling, 64 values each" in planned.stderr
    assert "input: in.csv, 3 texts" in planned.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("in.csv", "--layers", "7"), "the model has no layer 7; layers are 0"),
        (("in.csv", "--layers", "x"), "--layers 'x' is no list of whole numbers; write it as"),
        (("in.csv", "--text", "nothing"), "has no column 'nothing' for the text"),
        (
            ("in.csv", "-o", "out.bin"),
            "out.bin: no format for embeddings of texts is known by this suffix; choose .npy",
        ),
        (("in.csv", "--pooling", "most"), "'most' is not one of 'mean', 'cls', 'tokens'"),
        (("-", "-o", "out.npy"), "standard input, line 2: is empty, but each line is a text; remove the line"),
        (("-", "--text", "a"), "standard input has no columns"),
    ],
)
def test_faults_are_one_line(bertkit: Run, tmp_path: Path, model: Path, words: tuple[str, ...], said: str) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    assert_one_line_error(bertkit("embed", model, *words, "--backend", "null", "-d", "fp32", said="a\n\nb\n"), said)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == before


def theirs(model: Path, layers: tuple[int, ...]) -> list[np.ndarray]:
    """Each text's hidden states by transformers, layers side by side."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    encoder = transformers.BertModel.from_pretrained(model, add_pooling_layer=False).eval()
    tokenizer = transformers.BertTokenizerFast(str(model / "vocab.txt"))
    found = []
    for text in TEXTS:
        with torch.no_grad():
            states = encoder(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        found.append(np.concatenate([states[layer][0].numpy() for layer in layers], 1))
    return found
