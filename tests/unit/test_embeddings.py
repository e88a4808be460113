"""Embeddings without a framework: pooling, layers, what texts are read, what files are written, what cannot be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bertkit
from bertkit.console import Display
from bertkit.data.tasks.sample import vocabulary
from bertkit.errors import UserError
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.parameters import initial
from bertkit.recipes.resolve import resolve
from bertkit.training.embedding import EmbeddingWay, TextSource, embed_to_file, open_source
from bertkit.training.embedding_files import check_output, text_line, token_line, write_texts, write_tokens
from bertkit.training.encoder import EmbeddedTexts, Encoder, TokenEmbeddings, layer_numbers, pool, unit

MODEL = ModelConfig(32, 3, 4, 64, vocab_size=len(vocabulary()), max_position_embeddings=128)
ROWS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
PARTS = [EmbeddedTexts(("a", "b", 'ü "c"'), ROWS[:3]), EmbeddedTexts(("d", "e"), ROWS[3:])]
TOKENS = [
    TokenEmbeddings(("[CLS]", "a"), np.array([2, 7], np.int32), ROWS[:2]),
    TokenEmbeddings(("[CLS]", "b", "[SEP]"), np.array([2, 8, 3], np.int32), ROWS[2:]),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of a pre-trained model, as another program would have saved it."""
    folder = tmp_path_factory.mktemp("model")
    head = Head("pretraining", 2)
    (folder / "config.json").write_text(json.dumps(to_mapping(MODEL, head, ())))
    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    write_arrays(folder / "model.safetensors", initial(MODEL, head, 1), {"format": "pt"})
    return folder


def null(model: Path, **more: Any) -> Encoder:
    return bertkit.load_encoder(model, backend="null", precision="fp32", **more)


def read(source: Path, *sets: str) -> list[str]:
    return list(open_source(str(source), resolve({}, sets).recipe).texts())


# ---- numbers ----


def test_the_mean_is_over_all_tokens_of_a_text_and_cls_is_its_first() -> None:
    starts = np.array([0, 2, 5], np.int32)
    assert np.allclose(pool(ROWS, starts, "mean"), [ROWS[:2].mean(0), ROWS[2:].mean(0)], atol=1e-7)
    assert np.array_equal(pool(ROWS, starts, "cls"), ROWS[[0, 2]])


def test_a_vector_of_zeros_is_not_divided_by_zero() -> None:
    found = unit(np.array([[3, 4], [0, 0]], np.float32))
    assert np.allclose(found, [[0.6, 0.8], [0, 0]])


@pytest.mark.parametrize(("wanted", "found"), [((-1,), (3,)), ((0, 1, 3), (0, 1, 3)), ((-1, -3), (3, 1))])
def test_layers_count_from_the_embeddings_or_from_the_last(wanted: tuple[int, ...], found: tuple[int, ...]) -> None:
    assert layer_numbers(MODEL, wanted) == found


@pytest.mark.parametrize("wrong", [4, -4])
def test_a_layer_that_is_not_there(wrong: int) -> None:
    with pytest.raises(UserError, match=rf"no layer {wrong}; layers are 0 \(the embeddings\), 1 to 3, or -1 to -3"):
        layer_numbers(MODEL, (-1, wrong))


# ---- the encoder ----


def test_embeddings_are_as_wide_as_the_layers_together(model: Path) -> None:
    with null(model, layers=(-1, -2), seq_length=16) as encoder:
        assert encoder.embed("the plot").shape == (64,)
        assert encoder.embed(text for text in ["the plot", "a film"]).shape == (2, 64)
        assert encoder.embed([]).shape == (0, 64)
        (one,) = encoder.embed_tokens(["the plot"])
        assert (one.tokens[0], one.tokens[-1], one.embeddings.shape) == ("[CLS]", "[SEP]", (len(one.ids), 64))
        encoder.embed(["the plot " * 20])
        assert encoder.full == 1


def test_rows_are_in_the_order_of_the_texts(model: Path) -> None:
    """Longest first in batches, and piece by piece: a row is still its own text's."""
    pytest.importorskip("torch")
    texts = ["the plot", "a film the plot was bad", "film", "the movie was good good"] * 5
    with bertkit.load_encoder(model, backend="cpu", precision="fp32", batch_size=3) as encoder:
        together, alone = encoder.embed(texts), [encoder.embed(text) for text in texts]
        tokens = encoder.embed_tokens(texts)
    assert np.abs(together - alone).max() < 1e-6
    assert np.abs(together - [one.embeddings.mean(0) for one in tokens]).max() < 1e-6


@pytest.mark.parametrize(
    ("texts", "words"),
    [(["a", " "], "text 1 is empty; leave it out"), (["a", None], "text 1 is NoneType, not a text; give a str")],
)
def test_what_is_no_text(model: Path, texts: Any, words: str) -> None:
    with null(model) as encoder, pytest.raises(UserError, match=words):
        encoder.embed(texts)


def test_what_an_encoder_is_not_asked(model: Path) -> None:
    with null(model) as encoder, pytest.raises(UserError, match="no pooling 'max'; choose mean or cls"):
        encoder.embed("a", pooling="max")  # type: ignore[call-overload]
    with pytest.raises(UserError, match="random weights"):
        null(Path("tiny"), settings={"model.start": "random"})


# ---- texts ----


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", "a fine, long film\nbad\n", ["a fine, long film", "bad"]),
        ("a.csv", "stars,review\n1,a film\n2,bad\n", ["a film", "bad"]),
        ("a.csv", "words\na film\nbad\n", ["a film", "bad"]),
        ("a.jsonl", '{"text": "a film", "label": 1}\n', ["a film"]),
    ],
)
def test_where_texts_are_read(tmp_path: Path, name: str, content: str, texts: list[str]) -> None:
    (tmp_path / name).write_text(content)
    assert read(tmp_path / name) == texts


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "stars,text\n1,a\n2,\n", r"a.csv:3: column text holds no text; fill it in"),
        ("a.csv", "sentence1,sentence2\na,b\n", "two columns of texts, sentence1 and sentence2; name one with --text"),
        ("a.csv", "text,label\n", "holds no "),
        ("a.txt", "a\n \nb\n", "a.txt, line 2: is empty, but each line is a text; remove the line"),
        ("a.txt", "", "holds no texts"),
    ],
)
def test_texts_that_are_none(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        read(tmp_path / name)


def test_a_column_by_name_and_empty_rows_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence1,sentence2\na,b\nc,\n")
    assert read(tmp_path / "a.csv", "table.text=sentence2", "table.empty=skip") == ["b"]
    with pytest.raises(UserError, match="no column 'nothing' for the text"):
        read(tmp_path / "a.csv", "table.text=nothing")


# ---- files ----


def test_a_file_of_numpy(tmp_path: Path) -> None:
    assert write_texts(tmp_path / "a.npy", iter(PARTS), 4) == 5
    found = np.load(tmp_path / "a.npy")
    assert (found.dtype, found.tolist()) == (np.float32, ROWS.tolist())
    assert np.load(tmp_path / "a.npy", mmap_mode="r").shape == (5, 4)


def test_a_file_of_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    assert write_texts(tmp_path / "a.parquet", iter(PARTS), 4) == 5
    found = pq.read_table(tmp_path / "a.parquet")
    assert found["text"].to_pylist() == ["a", "b", 'ü "c"', "d", "e"]
    assert np.array_equal(np.array(found["embedding"].to_pylist(), np.float32), ROWS)


def test_lines_of_json_give_the_same_float32(tmp_path: Path) -> None:
    assert write_texts(tmp_path / "a.jsonl", iter(PARTS), 4) == 5
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [one["text"] for one in found] == ["a", "b", 'ü "c"', "d", "e"]
    assert np.array_equal(np.array([one["embedding"] for one in found], np.float32), ROWS)
    odd = np.array([1e-30, -3e20, 0.0, 1.0], np.float32)
    assert np.array_equal(np.array(json.loads(text_line("a", odd))["embedding"], np.float32), odd)


def test_tokens_are_written_as_googles_program_does(tmp_path: Path) -> None:
    found = json.loads(token_line(1, TOKENS[1], (-1, -2)))
    assert found["linex_index"] == 1
    assert [feature["token"] for feature in found["features"]] == ["[CLS]", "b", "[SEP]"]
    assert [layer["index"] for layer in found["features"][0]["layers"]] == [-1, -2]
    values = [[layer["values"] for layer in feature["layers"]] for feature in found["features"]]
    assert np.array_equal(np.array(values, np.float32).reshape(3, 4), ROWS[2:])
    assert write_tokens(tmp_path / "a.jsonl", iter(TOKENS), (-1,), 4) == 2
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 2


def test_a_file_of_tokens(tmp_path: Path) -> None:
    assert write_tokens(tmp_path / "a.npz", iter(TOKENS), (-1,), 4) == 2
    with np.load(tmp_path / "a.npz") as found:
        assert np.array_equal(found["embeddings"], ROWS)
        assert found["input_ids"].tolist() == [2, 7, 2, 8, 3]
        assert (found["cu_seqlens"].tolist(), found["layers"].tolist()) == ([0, 2, 5], [-1])


@pytest.mark.parametrize(
    ("name", "tokens", "words"),
    [
        ("a.bin", False, "suffix; choose .npy, .parquet, .jsonl"),
        ("a.npy", True, "suffix; choose .npz, .jsonl"),
        ("b.npy", False, "is a folder; name a file"),
        ("in.jsonl", False, "is the input too, and would be overwritten"),
    ],
)
def test_where_nothing_can_be_written(tmp_path: Path, name: str, tokens: bool, words: str) -> None:
    (tmp_path / "b.npy").mkdir()
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(UserError, match=words):
        check_output(tmp_path / name, tokens, tmp_path / "in.jsonl")


@pytest.mark.parametrize(("name", "pooling"), [("a.npy", "mean"), ("a.parquet", "cls"), ("a.npz", "tokens")])
def test_a_fault_on_the_way_leaves_what_was_there(tmp_path: Path, model: Path, name: str, pooling: Any) -> None:
    (tmp_path / name).write_bytes(b"before")

    def texts() -> Iterator[str]:
        yield from ["the plot"] * 2000
        raise UserError("the disk is gone", "bring it back")

    way = EmbeddingWay(pooling, False)
    with null(model) as encoder, pytest.raises(UserError, match="the disk is gone"):
        embed_to_file(encoder, TextSource("x", texts, 2000), way, tmp_path / name, Display(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"before"
