"""`bertkit prune` as a command: the smaller model is scored, answers, and loads in transformers."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from bertkit.files.disk import read_arrays
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import SPECIAL
from command import CPU, record, run, settings
from conftest import assert_one_line_error

ROWS = settings(data__train_rows=64, data__eval_rows=60, device__threads=1)
SCORE = ("-d", "fp32", *settings(data__eval_rows=60, device__threads=1), "--json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, sample_dir: Path) -> Path:
    """A run of 4 updates."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(folder, *CPU, *ROWS, "--data-dir", sample_dir, "-b", "16", "-e", "1", "--lr", "1e-3", "-o", "run")
    assert done.returncode == 0, done.stderr
    return folder / "run"


@pytest.mark.slow
def test_a_vocabulary_of_the_corpus_changes_no_logit(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    some = tmp_path / "some.tsv"
    some.write_text("".join((sample_dir / "sample" / "test.tsv").open().readlines()[:21]), encoding="utf-8")
    asked = ("--corpus", some, "--data-dir", sample_dir, *SCORE)
    done = run(tmp_path, "prune", "vocabulary", trained, "-o", "fewer", *asked)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["scores"]["before"] == record(trained)["metrics"]
    whole, small = (read_vocabulary(folder / "vocab.txt") for folder in (trained, tmp_path / "fewer"))
    assert len(small.pieces) == made["after"]["vocabulary"] == made["pruned"]["rows"] < len(whole.pieces)
    logits = []
    for model in (trained, "fewer"):
        done = run(tmp_path, "predict", model, "--file", some, "-d", "fp32", "-o", f"of-{Path(model).name}", "-q")
        assert done.returncode == 0, done.stderr
        logits.append(next((tmp_path / f"of-{Path(model).name}").glob("*.logits.json")).read_text())
    assert logits[0] == logits[1]

    transformers = pytest.importorskip("transformers")
    _, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "fewer", output_loading_info=True
    )
    assert not any(told.values()), told
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "fewer")
    text = some.read_text(encoding="utf-8").splitlines()[1].split("\t")[1]
    ids = theirs(text)["input_ids"]
    assert theirs.convert_ids_to_tokens(ids) == [small.pieces[number] for number in ids]
    assert "[UNK]" not in theirs.convert_ids_to_tokens(ids)


@pytest.mark.slow
def test_layers_go_and_the_score_is_told(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    done = run(
        tmp_path, "prune", "layers", trained, "-o", "fewer", "--keep", "1", "--data-dir", sample_dir, *SCORE[:-1]
    )
    assert done.returncode == 0, done.stderr
    before = record(trained)["metrics"]["accuracy"]
    assert "layers kept: 1 of 0 to 1\n" in done.stdout
    assert f"sample dev, 60 examples, fp32:\n  accuracy: {before:.4f} before, " in done.stdout
    told = json.loads((tmp_path / "fewer" / "pruning.json").read_text())["scores"]
    scored = run(tmp_path, "evaluate", "fewer", "--data-dir", sample_dir, *SCORE)
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["metrics"] == told["after"]
    again = run(tmp_path, "prune", "layers", "fewer", "-o", "fewer", "--number", "1")
    assert_one_line_error(again, "fewer holds the model itself")
    wrong = run(tmp_path, "prune", "layers", trained, "-o", "other", "--keep", "1,x")
    assert_one_line_error(wrong, "--keep '1,x' is no list of layers; write it as --keep 1,3,5")
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_the_masked_words_head_keeps_its_logits_in_transformers(tmp_path: Path) -> None:
    """Of the words that stay, in a model that transformers wrote with a decoder beside the embeddings."""
    import torch

    transformers = pytest.importorskip("transformers")
    words = [*SPECIAL, "a", "##a", "b", "##b", "c", "##c", *("".join(word) for word in product("abc", repeat=3))]
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(1)
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(words), **sizes)).eval()
    torch.nn.init.normal_(model.cls.predictions.bias)
    model.save_pretrained(tmp_path / "whole")
    (tmp_path / "whole" / "vocab.txt").write_text("\n".join(words) + "\n")
    (tmp_path / "corpus.txt").write_text("abc cab bab\n")
    done = run(tmp_path, "prune", "vocabulary", "whole", "-o", "fewer", "--corpus", "corpus.txt")
    assert done.returncode == 0, done.stderr
    assert "no score was measured: whole does not state a task" in done.stderr

    fewer, told = transformers.BertForMaskedLM.from_pretrained(tmp_path / "fewer", output_loading_info=True)
    assert not any(told.values()), told
    kept = (tmp_path / "fewer" / "vocab.txt").read_text().split()
    assert kept == [*words[:11], "abc", "bab", "cab"]
    text = ["[CLS]", "cab", "[MASK]", "bab", "c", "##b", "[SEP]"]
    found = []
    for each, names in ((model, words), (fewer.eval(), kept)):
        with torch.no_grad():
            logits = each(torch.tensor([[names.index(word) for word in text]])).logits[0]
        found.append(logits[:, [names.index(word) for word in kept]].numpy())
    assert np.abs(found[0] - found[1]).max() < 1e-5


@pytest.mark.slow
def test_heads_at_0_load_anywhere_and_stay_at_0(trained: Path, sample_dir: Path, tmp_path: Path) -> None:
    words = ("prune", "heads", trained, "--data-dir", sample_dir, *SCORE)
    done = run(tmp_path, *words, "--number", "2", "--rows", "32", "-o", "fewer")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert (made["pruned"]["of"], made["pruned"]["by"]) == ([2, 2], "gradient")
    assert sum(map(len, made["pruned"]["heads"].values())) == 2
    assert made["before"] == made["after"]
    assert made["scores"]["before"] == record(trained)["metrics"]
    found = read_arrays(tmp_path / "fewer" / "model.safetensors")[0]
    gone = {name: array == 0 for name, array in found.items() if "attention" in name and "LayerNorm" not in name}
    assert sum(int(zero.sum()) for name, zero in gone.items() if name.endswith("weight")) >= 2 * 4 * 64 * 128
    again = run(tmp_path, *CPU, *ROWS, "--data-dir", sample_dir, "-b", "16", "-e", "1", "-m", "fewer", "-o", "again")
    assert again.returncode == 0, again.stderr
    after = read_arrays(tmp_path / "again" / "model.safetensors")[0]
    assert all(not after[name][zero].any() for name, zero in gone.items() if name.endswith("weight"))
    transformers = pytest.importorskip("transformers")
    _, told = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "fewer", output_loading_info=True
    )
    assert not any(told.values()), told
    assert_one_line_error(run(tmp_path, *words, "--number", "3", "-o", "none"), "3 of 4 heads cannot go; take 1 to 2")
