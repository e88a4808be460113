"""Small inputs that failed once, from a folder beside the project: each gives the right answer that its README states.

The folder is not part of the project: BERTKIT_TEST_CASES names it, else it is looked for in `../shared/cases` beside
the checkout. Cases of the same kinds, made by the tests themselves, stand beside the code that they test.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import ROOT, Run, assert_one_line_error

ANSWERS: dict[str, tuple[str, list[list[float]]]] = {  # case -> (file, logits by transformers 5.17 on the same folder)
    "added_tokens": ("added.tsv", [[0.2779, 0.3368], [0.2651, 0.4298], [0.0002, 0.5025]]),
    "bin_shards": ("test.tsv", [[-3.9833, -2.7645], [-2.1812, -1.616]]),
    "state_wrapped": ("test.tsv", [[-3.9833, -2.7645], [-2.1812, -1.616]]),
    "strip_accents": ("de.tsv", [[-1.1957, 0.0178], [-0.936, 0.0248], [-0.9957, -0.0514], [-1.1529, -0.4876]]),
    "surplus_rows": ("test.tsv", [[-0.6195, 1.1123], [-1.0147, 1.1186]]),
    "tokenizer_json_only": ("test.tsv", [[-3.9833, -2.7645], [-2.1812, -1.616]]),
    "vocab_doubled": ("test.tsv", [[-0.9481, 0.0553], [0.0791, -1.8458]]),
}
FP32 = ("-d", "fp32", "-s", "64", "--set", "device.threads=1")


@pytest.fixture(scope="session")
def cases() -> Path:
    """The folder of cases; the test is skipped without it."""
    folder = Path(os.environ.get("BERTKIT_TEST_CASES") or ROOT.parent / "shared" / "cases")
    if not (folder / "README.md").is_file():
        pytest.skip(f"no cases in {folder}: set BERTKIT_TEST_CASES")
    return folder.resolve()


@pytest.fixture
def case(cases: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A case's files, copied into the test's own folder."""
    name = getattr(request, "param", None) or str(request.node.originalname).removeprefix("test_")
    shutil.copytree(cases / name, tmp_path, dirs_exist_ok=True)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path


def logits(folder: Path) -> np.ndarray:
    return np.array(json.loads((folder / "out" / "SST-2.logits.json").read_text(encoding="utf-8")))


@pytest.mark.slow_but("added_tokens")
@pytest.mark.parametrize(("case", "name"), [(name, name) for name in ANSWERS], indirect=["case"], ids=list(ANSWERS))
def test_logits(bertkit: Run, case: Path, name: str) -> None:
    file, right = ANSWERS[name]
    done = bertkit("predict", "model", "-t", "sst2", "--file", file, *FP32, "-o", "out")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(logits(case), right, atol=6e-5)
    if name == "vocab_doubled":
        assert "warning" in done.stderr


def test_casing_chinese(bertkit: Run, case: Path) -> None:
    done = bertkit("predict", "model", "-t", "sst2", "--file", "zh_cased.tsv", *FP32, "-o", "out")
    assert done.returncode == 0, done.stderr
    first, second = logits(case)
    np.testing.assert_array_equal(first, second)


def test_decoder_config(bertkit: Run, case: Path) -> None:
    done = bertkit("predict", "model", "-t", "sst2", "--file", "test.tsv", *FP32, "-o", "out")
    assert_one_line_error(done, "is_decoder")


@pytest.mark.slow
def test_hub_output(bertkit: Run, cases: Path, tmp_path: Path) -> None:
    shutil.copy(cases / "bin_shards" / "test.tsv", tmp_path / "test.tsv")
    snapshot = tmp_path / "hub" / "models--acme--bert-sst2"
    shutil.copytree(cases / "strip_accents" / "model", snapshot / "snapshots" / "abc")
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    words = ("predict", "acme/bert-sst2", "-t", "sst2", "--file", "test.tsv", *FP32)
    done = bertkit(*words, HF_HUB_CACHE=str(tmp_path / "hub"))
    assert not (tmp_path / "acme").exists(), done.stderr
    if done.returncode:
        assert_one_line_error(done, "-o")
    asked = bertkit(*words, "-o", "out", HF_HUB_CACHE=str(tmp_path / "hub"))
    assert asked.returncode == 0, asked.stderr
    assert logits(tmp_path).shape == (2, 2)


@pytest.mark.slow
def test_id0_not_pad(bertkit: Run, case: Path) -> None:
    shares = {}
    for form in ("parquet", "hdf5", "tfrecord"):
        words = ("data", "prepare", "corpus", "-o", form, "--vocab", "vocab.txt", "-s", "64", "--workers", "1")
        made = bertkit(*words, "--format", form, "--masking", "static", "--overwrite")
        assert made.returncode == 0, made.stderr
        found = bertkit("data", "inspect", form, "--samples", "0", "--json")
        text = found.stdout
        shares[form] = float(text[text.index('"share"') :].split(":")[1].split(",")[0].split("}")[0])
    assert set(map("{:.4f}".format, shares.values())) == {"0.1523"}


def test_jsonl_key(bertkit: Run, case: Path) -> None:
    words = ("data", "prepare", "two_jsonl", "-o", "out", "--vocab", "vocab.txt", "-s", "64", "--workers", "1")
    assert_one_line_error(bertkit(*words, "--overwrite"), "text")


def test_kubeflow_env(bertkit: Run, tmp_path: Path) -> None:
    words = ("train", "--backend", "null", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32", "-e", "1", "-o", "r")
    assert bertkit("data", "get", "sample").returncode == 0
    kubeflow = {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "23456"}
    done = bertkit(*words, "--data-dir", "data", **kubeflow)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_label_order(bertkit: Run, case: Path) -> None:
    words = ("evaluate", "model", "-t", "rte", "--data-dir", ".", *FP32, "--json")
    done = bertkit(*words)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["accuracy"] == 1.0


def test_parquet_dictionary(bertkit: Run, case: Path) -> None:
    done = bertkit("data", "inspect", "shards", "--samples", "0")
    assert done.returncode == 0, done.stderr


def test_path_latin1(bertkit: Run, tmp_path: Path) -> None:
    assert bertkit("data", "get", "sample").returncode == 0
    folder = os.fsdecode(b"caf\xe9")
    (tmp_path / folder).mkdir()
    words = ("train", "--backend", "null", "-t", "sample", "-m", "tiny", "-s", "32", "-d", "fp32", "-e", "1")
    done = bertkit(*words, "--data-dir", "data", "-o", f"{folder}/run")
    assert done.returncode == 0, done.stderr


def test_special_literal(bertkit: Run, case: Path) -> None:
    words = ("data", "prepare", "corpus", "-o", "out", "--vocab", "vocab.txt", "-s", "64", "--workers", "1")
    assert bertkit(*words, "--masking", "static", "--overwrite").returncode == 0
    shown = bertkit("data", "inspect", "out", "--samples", "5")
    assert shown.returncode == 0, shown.stderr
    assert "|[MASK]" not in shown.stdout


def test_squad_all_misplaced(bertkit: Run, case: Path, cases: Path) -> None:
    files = ("--set", "data.train_file=squad_emoji16.json", "--set", "data.dev_file=squad_lead.json")
    words = ("train", "-m", str(cases / "stdout_gbk" / "model"), "-t", "squad", *files, "-s", "64")
    done = bertkit(*words, "--set", "data.doc_stride=16", "--dry-run")
    assert_one_line_error(done, "left out")


def test_squad_int_id(bertkit: Run, case: Path, cases: Path) -> None:
    model = shutil.copytree(cases / "stdout_gbk" / "model", case / "model")
    done = bertkit("predict", model, "-t", "squad", "--file", "squad_intid.json", *FP32, "-o", "out")
    assert done.returncode == 0, done.stderr
    (answers,) = (case / "out").rglob("predictions.json")
    assert {"262", "263"} <= set(json.loads(answers.read_text(encoding="utf-8")))


@pytest.mark.parametrize("encoding", ["gbk", "latin-1", "ascii"])
def test_stdout_gbk(bertkit: Run, case: Path, encoding: str) -> None:
    context = "The play 😀 was written by a clerk"
    words = ("ask", "model", "--question", "who", "--context", context, "-s", "64", "-d", "fp32", "-n", "8")
    done = bertkit(*words, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "\\U0001f600" in done.stdout or "😀" not in done.stdout


def test_types1_pairs(bertkit: Run, case: Path) -> None:
    words = ("train", "-m", "model", "-t", "mrpc", "--data-dir", ".", "-s", "32", "-b", "2", "-e", "1", "-d", "fp32")
    for more in (("--dry-run",), ()):
        assert_one_line_error(bertkit(*words, "-o", "out", *more), "type_vocab_size")
        assert not (case / "out").exists()
