"""A run's folder is a model that transformers loads: the same tokens, the same logits, no missing name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Run

transformers = pytest.importorskip("transformers")


@pytest.mark.slow
@pytest.mark.parametrize(("model", "task"), [("tiny", "sample"), ("minilm", "stsb")])
def test_transformers_computes_the_same_logits(
    model: str, task: str, bertkit: Run, tmp_path: Path, sample_dir: Path, request: pytest.FixtureRequest
) -> None:
    import torch

    data, name, file = sample_dir, model, sample_dir / "sample" / "test.tsv"
    if model == "minilm":
        real = request.getfixturevalue("real_data")
        data, name = real / "glue", str(real / "minilm")
        lines = (data / "STS-B" / "dev.tsv").read_text(encoding="utf-8").splitlines(keepends=True)[:41]
        file = tmp_path / "some.tsv"
        file.write_text("".join(lines), encoding="utf-8")
    done = bertkit(
        "train", "-m", name, "-t", task, "--data-dir", data, "-d", "fp32", "-b", "8", "-s", "64", "-o", "run",
        "--set", "data.train_rows=40", "--set", "data.eval_rows=40", "-q",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    done = bertkit("predict", "run", "--file", file, "-o", "out", "-d", "fp32", "-s", "64", "-q")
    assert done.returncode == 0, done.stderr
    logits = np.array(json.loads(next((tmp_path / "out").glob("*.logits.json")).read_text()))
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    rows = [line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:]][:40]
    texts = [row[1] for row in rows] if task == "sample" else [(row[7], row[8]) for row in rows]
    encoded = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.no_grad():
        expected = theirs.eval()(**encoded).logits.numpy()
    assert np.abs(logits[:40] - expected).max() < 1e-5
