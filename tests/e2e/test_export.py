"""`bertkit export` as a command; what it writes, in programs that know nothing of bertkit."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from bertkit.conformance.fixtures import with_settings
from bertkit.data.tasks import find_task
from bertkit.engine.registry import find
from bertkit.training.export_checks import made_batch, padded
from conftest import Run, assert_one_line_error
from exported import CONFIG, run_folder, small

PROGRAMS = {
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession("out/model.onnx")
found = dict(zip([one.name for one in session.get_outputs()], session.run(None, given)))
""",
    "openvino": """
import openvino
compiled = openvino.compile_model("out/model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
answer = compiled(given)
found = {name: answer[name] for name in names}
""",
    "torchscript": """
import torch
order = ("input_ids", "attention_mask", "token_type_ids")
with torch.no_grad():
    answer = torch.jit.load("out/model.pt")(*(torch.tensor(given[name]) for name in order))
found = {name: tensor.numpy() for name, tensor in zip(names, answer)}
""",
    "huggingface": """
import torch, transformers
kind = json.load(open("out/config.json"))["architectures"][0]
with torch.no_grad():
    answer = getattr(transformers, kind).from_pretrained("out").eval()(**{k: torch.tensor(v) for k, v in given.items()})
found = {name: answer[name].numpy() for name in names}
words = transformers.AutoTokenizer.from_pretrained("out")("w1 w2")["input_ids"]
assert words == [2, 6, 7, 3], words
""",
}
FRAME = """
import json, sys
import numpy
names = sys.argv[1:]
given = {name: array.astype("int64") for name, array in numpy.load("given.npz").items()}
%s
numpy.savez("found.npz", **found)
assert not [name for name in sys.modules if name.startswith("bertkit")]
"""
MODULES = {"onnx": "onnxruntime", "huggingface": "transformers", "torchscript": "torch"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "task"), [("onnx", "squad"), ("openvino", "sample"), ("torchscript", "squad"), ("huggingface", "sample")]
)
def test_any_program_loads_it(form: str, task: str, bertkit: Run, sample_dir: Path, tmp_path: Path) -> None:
    if util.find_spec(MODULES.get(form, form)) is None or (form != "torchscript" and util.find_spec("onnx") is None):
        pytest.skip(f"no {MODULES.get(form, form)} or no onnx")
    run_folder(tmp_path / "run", task, seq_length=32)
    done = bertkit("export", "run", "-o", "out", "--format", form, "--data-dir", sample_dir, "--json")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["difference"] < 1e-5
    examples = ["64 examples of dev.tsv"] if task == "sample" else []
    assert made["verified_on"] == ["1 token", "40 tokens", "mixed lengths", *examples]
    ragged = made_batch(CONFIG, np.array((1, 40, 13, 2)), 9)
    inputs = padded(ragged)
    np.savez(tmp_path / "given.npz", **inputs)
    head = find_task(task).head
    wanted = with_settings(find("cpu"), small(head)).predict(ragged)
    words = [sys.executable, "-c", FRAME % PROGRAMS[form], *wanted]
    plain = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert plain.returncode == 0, plain.stderr
    with np.load(tmp_path / "found.npz") as found:
        for name, values in wanted.items():
            ours = found[name][inputs["attention_mask"] > 0] if head.kind == "span" else found[name]
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, values, atol=1e-4)


def test_what_a_format_has_not_is_one_line(bertkit: Run, tmp_path: Path) -> None:
    run_folder(tmp_path / "run", "sample", seq_length=32)
    done = bertkit("export", "run", "-o", "out", "--format", "huggingface", "-d", "bf16")
    assert_one_line_error(done, "--format huggingface has no bf16", "it has fp32, fp16: choose with -d")
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == ["run"]
