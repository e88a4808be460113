"""What TensorFlow itself writes and reads beside the engine: profiles, SavedModels. Skipped without it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bertkit_tensorflow
from bertkit.conformance.fixtures import HEADS, with_settings
from bertkit.engine.exports import ExportedModel, find_format
from bertkit.engine.interface import Precision
from bertkit.engine.registry import find
from bertkit.model.config import Head, HeadKind
from bertkit.training.export_checks import edge_batches, edges, made_batch, padded, verify
from conftest import Run
from exported import CONFIG, model_folder, small
from profiles import profiled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not bertkit_tensorflow.version(), reason="no TensorFlow: pip install 'bertkit[tensorflow]'"),
]
KINDS = ("classification", "multilabel", "regression", "choice", "tokens", "span")


@pytest.fixture(autouse=True)
def _as_many_threads_as_engines_have() -> None:
    """TensorFlow takes the number at its first operation, once a process, and other tests here make engines."""
    from bertkit_tensorflow.device import set_threads

    set_threads(1)


def test_profiles_are_chrome_traces_of_what_was_asked_for(bertkit: Run, tmp_path: Path, sample_dir: Path) -> None:
    found = profiled(bertkit, tmp_path, sample_dir, "tensorflow")
    for name, spans in found.items():
        assert spans.count("FunctionRun") == (4 if name == "run/trace.json" else 2), name  # an update has two graphs
        assert any("MatMul" in span for span in spans), name


# ---- SavedModels ----


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_head_computes_what_the_engine_does(kind: HeadKind, precision: Precision, tmp_path: Path) -> None:
    job, form = small(HEADS[kind]), find_format("savedmodel")
    model = ExportedModel(job.model, job.head, job.weights, precision)
    form.write(model, tmp_path)
    loaded = form.load(tmp_path)
    assert loaded is not None
    found = verify(loaded, with_settings(find("cpu"), job), model, edge_batches(job.model, job.head))
    assert found.keys() == edges(40).keys()
    assert max(found.values()) < (1e-5 if precision == "fp32" else 5e-2)
    assert (max(found.values()) > 1e-5) == (precision == "bf16")


PLAIN = """
import sys
import numpy, tensorflow
loaded = tensorflow.saved_model.load(sys.argv[1])
given = numpy.load(sys.argv[2])
for name in ("serving_default", "serving_int64"):
    signature = loaded.signatures[name]
    dtype = signature.structured_input_signature[1]["input_ids"].dtype
    found = signature(**{name: tensorflow.cast(given[name], dtype) for name in given})
    numpy.savez(f"{name}.npz", **{name: tensor.numpy() for name, tensor in found.items()})
try:
    signature(**{name: tensorflow.zeros([1, 41], dtype) for name in given})
except tensorflow.errors.InvalidArgumentError as error:
    print("refused:", "over the 40 positions of the model" in str(error))
assert not [name for name in sys.modules if name.startswith("bertkit")]
"""


@pytest.mark.parametrize("task", ["sample", "squad"])
def test_any_program_with_tensorflow_loads_it(task: str, bertkit: Run, tmp_path: Path) -> None:
    head = Head("span", 2) if task == "squad" else Head("classification", 2)
    model_folder(tmp_path / "run", head)
    done = bertkit("export", "run", "-o", "out", "--format", "savedmodel", "-t", task, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"] < 1e-5
    assert "I0000" not in done.stderr
    ragged = made_batch(CONFIG, np.array((1, 40, 13, 2)), 9)
    inputs = padded(ragged)
    np.savez(tmp_path / "given.npz", **inputs)
    words = [sys.executable, "-c", PLAIN, "out", "given.npz"]
    plain = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == "refused: True\n"
    wanted = with_settings(find("cpu"), small(head)).predict(ragged)
    real = inputs["attention_mask"] > 0
    for name in ("serving_default", "serving_int64"):
        with np.load(tmp_path / f"{name}.npz") as found:
            assert set(found) == wanted.keys()
            for output, values in wanted.items():
                ours = found[output][real] if head.kind == "span" else found[output]
                assert ours.dtype == np.float32
                np.testing.assert_allclose(ours, values, atol=1e-4)


def test_the_engine_compared_with_may_be_tensorflows(bertkit: Run, tmp_path: Path) -> None:
    model_folder(tmp_path / "run", Head("classification", 2))
    words = ("export", "run", "-o", "out", "--format", "savedmodel", "-t", "sample", "--backend", "tf", "-d", "bf16")
    done = bertkit(*words)
    assert done.returncode == 0, done.stderr
    assert "comparing with tensorflow in fp32" in done.stderr
    assert "verified on 1 token, 40 tokens, mixed lengths" in done.stdout
