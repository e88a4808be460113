"""Exports in int8: what the graph says, and what a runtime computes of it beside the engines."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections import Counter
from importlib import util
from pathlib import Path

import numpy as np
import pytest

from bertkit.cli.main import main
from bertkit.conformance.fixtures import HEADS, with_settings
from bertkit.engine.exports import ExportedModel, find_format
from bertkit.engine.interface import Job
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit.model.config import Arrays, Head, HeadKind
from bertkit.model.int8 import scales_place
from bertkit.training import calibration
from bertkit.training.export_checks import TOLERANCES, edge_batches, verify
from bertkit_onnx import sums
from exported import model_folder, run_folder, small
from int8_here import needs_int8, weight_bits

pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
NEEDS = {"onnx": (), "openvino": ("openvino",), "triton": ("tritonclient", "grpc")}  # beside these two


def calibrated(job: Job) -> Arrays:
    engine = with_settings(find("cpu"), dataclasses.replace(job, precision="int8"))
    found = engine.calibrate([batch for several in edge_batches(job.model, job.head).values() for batch in several])  # type: ignore[attr-defined]
    scales: Arrays = found.scales
    return scales


def alike(job: Job) -> Arrays:
    """The same scale and zero point at every place."""
    places = {scales_place(name.removesuffix(".weight")) for name in job.weights if ".layer." in name}
    return {place: np.array([0.05, 128], np.float32) for place in places}


def exported(job: Job, scales: Arrays, form: str, **options: object) -> ExportedModel:
    known = {name: setting.default for name, setting in find_format(form).settings.items()} | options
    return ExportedModel(job.model, job.head, job.weights, "int8", settings=known, scales=scales)  # type: ignore[arg-type]


def test_each_dense_layer_of_the_encoder_and_no_other_is_quantised(tmp_path: Path) -> None:
    import onnx

    job = small(HEADS["classification"])
    model = exported(job, alike(job), "onnx")
    find_format("onnx").write(model, tmp_path)
    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=True)
    graph = onnx.load(tmp_path / "model.onnx").graph
    kinds = {one.name: one.data_type for one in graph.initializer}
    operators = Counter(node.op_type for node in graph.node)
    # in the first layer 4 products, in the last, of which only one token is wanted, 5
    assert (operators["QuantizeLinear"], operators["DequantizeLinear"]) == (9, 18)
    weights = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in kinds]
    assert len(weights) == 9
    assert {kinds[node.input[0]] for node in weights} == {onnx.TensorProto.INT8}
    assert {tuple(attribute.i for attribute in node.attribute) for node in weights} == {(1,)}
    inputs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {kinds[node.input[2]] for node in inputs} == {onnx.TensorProto.UINT8}
    assert kinds["bert.pooler.dense.weight.T"] == kinds["bert.embeddings.word_embeddings.weight"] == 1


def test_fused_operators_have_no_int8(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--option fused=true has no int8"):
        find_format("onnx").write(exported(small(HEADS["span"]), {}, "onnx", fused=True), tmp_path)


@needs_int8
@pytest.mark.parametrize("kind", ["classification", "span"])
@pytest.mark.parametrize("form", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_runtime_computes_what_the_engine_does(form: str, kind: HeadKind, tmp_path: Path) -> None:
    if util.find_spec(form if form == "openvino" else "onnxruntime") is None:
        pytest.skip(f"no {form}")
    job = small(HEADS[kind])
    scales = calibrated(job)
    model, chosen = exported(job, scales, form, weight_bits=weight_bits()), find_format(form)
    chosen.write(model, tmp_path)
    loaded = chosen.load(tmp_path)
    assert loaded is not None
    batches = edge_batches(job.model, job.head)
    exact = verify(loaded, with_settings(find("cpu"), job), model, batches)
    in_int8 = dataclasses.replace(job, precision="int8", scales=scales)
    near = verify(loaded, with_settings(find("cpu"), in_int8), model, batches)
    assert max(near.values()) < 0.15
    assert 1e-5 < max(exact.values()) < TOLERANCES["int8"]
    own = with_settings(find("openvino" if form == "openvino" else "onnxruntime"), in_int8)
    chosen.write(exported(job, scales, form, weight_bits=7 if "dense layers" in own.describe() else 8), tmp_path)
    same = chosen.load(tmp_path)
    assert same is not None
    assert max(verify(same, own, model, batches).values()) < 1e-5
    few = np.array([0.1, 1], np.float32)
    wrong = {name: array * (few if len(array) == 2 else 1) for name, array in scales.items()}
    chosen.write(exported(job, wrong, form), tmp_path)
    off = chosen.load(tmp_path)
    assert off is not None
    with pytest.raises(UserError, match="of the logits' root mean square on"):
        verify(off, with_settings(find("cpu"), job), model, batches)


def test_the_bits_of_a_weight_can_be_seven_and_nothing_else(tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    job = small(HEADS["classification"])
    scales = alike(job)
    for bits, largest in ((8, 127), (7, 64)):
        find_format("onnx").write(exported(job, scales, "onnx", weight_bits=bits), tmp_path)
        kept = (numpy_helper.to_array(one) for one in onnx.load(tmp_path / "model.onnx").graph.initializer)
        assert max(int(np.abs(one.astype(int)).max()) for one in kept if one.dtype == np.int8) == largest
    with pytest.raises(UserError, match="--option weight_bits=6 is neither 7 nor 8"):
        find_format("onnx").write(exported(job, scales, "onnx", weight_bits=6), tmp_path)


def test_sums_that_are_cut_off_at_16_bits_are_noticed() -> None:
    weights = sums.WEIGHTS[0].astype(float)  # those of every input

    def pairs(graph: bytes, x: np.ndarray, most: float) -> np.ndarray:
        both = np.clip(2 * x[:, ::2, None] * weights, -most, most)  # neighbours are alike
        return np.asarray(both.sum(1), np.float32)

    assert not sums.are_exact(functools.partial(pairs, most=2**15 - 1))
    assert sums.are_exact(functools.partial(pairs, most=2**31 - 1))


@pytest.mark.parametrize(
    ("form", "trial"),
    [
        ("openvino", "bertkit_onnx.openvino.openvino_is_exact"),
        ("onnx", "bertkit_onnx.sums.onnxruntime_is_exact"),
        ("triton", "bertkit_triton.repository.onnxruntime_is_exact"),
    ],
)
def test_an_export_is_a_warning_where_its_runtime_cuts_off_sums(
    form: str, trial: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing := [name for name in NEEDS[form] if not util.find_spec(name)]:
        pytest.skip(f"{' and '.join(missing)} not installed")
    job = small(HEADS["classification"])
    scales = alike(job)
    for number, (exact, bits, said) in enumerate(((False, 8, True), (False, 7, False), (True, 8, False))):
        monkeypatch.setattr(trial, lambda exact=exact: exact)
        caplog.clear()
        folder = tmp_path / str(number)
        folder.mkdir()
        find_format(form).write(exported(job, scales, form, weight_bits=bits), folder)
        assert ("--option weight_bits=7" in caplog.text) == said


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_that_cuts_off_sums_answers_with_weights_of_7_bits(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(runtime)
    job = small(HEADS["classification"])
    in_int8 = dataclasses.replace(job, precision="int8", scales=alike(job))
    for exact in (True, False):
        monkeypatch.setattr(f"bertkit_onnx.engines.{runtime}_is_exact", lambda exact=exact: exact)
        assert ("dense layers" in with_settings(find(runtime), in_int8).describe()) != exact


def test_int8_without_scales_is_refused() -> None:
    with pytest.raises(UserError, match="takes the scales of int8 from the run's folder, and they are not there"):
        find("onnxruntime").engine(dataclasses.replace(small(HEADS["span"]), precision="int8"), None)  # type: ignore[arg-type]


@needs_int8
def test_a_run_is_exported_with_the_scales_of_its_folder_and_its_scores(
    sample_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_folder(tmp_path / "run", "sample", seq_length=40)
    words = ["export", str(run), "-o", str(tmp_path / "out"), "--format", "onnx", "-d", "int8", "--backend", "cpu"]
    words += ["--data-dir", str(sample_dir), "-q"]
    monkeypatch.setattr(calibration, "MOST_LOSS", -1.0)  # so that whatever comes out is a warning
    with caplog.at_level(logging.WARNING), pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 0
    assert "int8 changes the dev set's accuracy" in caplog.text
    told = json.loads((tmp_path / "out" / "bertkit.json").read_text())
    assert (run / "int8.safetensors").is_file()
    assert told["measure"] == "the logits' root mean square"
    assert told["dev_scores"]["examples"] > 100
    assert told["dev_scores"]["fp32"].keys() == told["dev_scores"]["int8"].keys() >= {"accuracy"}
    with pytest.raises(SystemExit) as ended:
        main([*words, "--overwrite", "--verify-examples", "0"])
    assert ended.value.code == 0
    assert "dev_scores" not in json.loads((tmp_path / "out" / "bertkit.json").read_text())


def test_a_model_that_states_no_task_has_no_int8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = model_folder(tmp_path / "model", Head("classification", 2))
    with pytest.raises(SystemExit) as ended:
        main(["export", str(model), "-o", str(tmp_path / "out"), "--format", "onnx", "-d", "int8", "-t", "sample"])
    assert ended.value.code == 2
    assert "does not state the data it was trained on, which int8 needs" in capsys.readouterr().err
