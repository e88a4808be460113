"""What each format writes, loaded by its own runtime and compared with bertkit's engine."""

from __future__ import annotations

import dataclasses
from importlib import metadata, util
from pathlib import Path

import numpy as np
import pytest

from bertkit.conformance.fixtures import HEADS, with_settings
from bertkit.engine.exports import ExportedModel, find_format, format_names
from bertkit.engine.interface import Job, Precision
from bertkit.engine.registry import find
from bertkit.errors import UserError
from bertkit.model.config import ARCHITECTURES, HeadKind
from bertkit.training.export_checks import TOLERANCES, edge_batches, verify
from exported import CONFIG, small

KINDS: tuple[HeadKind, ...] = ("classification", "multilabel", "regression", "choice", "tokens", "span")
NEEDS = {"onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino"), "huggingface": ("transformers",)}
NEEDS |= {"torchscript": (), "triton": ("onnx", "onnxruntime", "tritonclient")}
FULL = pytest.mark.slow_but("onnx-classification-fp32", "onnx-span-bf16")


def needs(form: str) -> None:
    missing = [name for name in NEEDS[form] if util.find_spec(name) is None]
    if missing:
        pytest.skip(f"no {missing[0]}")


def compared(form: str, job: Job, precision: Precision, folder: Path, **settings: str | int | bool) -> float:
    """The largest difference from the engine on the edges' lengths."""
    needs(form)
    chosen = find_format(form)
    known = {name: setting.default for name, setting in chosen.settings.items()} | settings
    model = ExportedModel(job.model, job.head, job.weights, precision, settings=known)
    chosen.check()
    chosen.write(model, folder)
    loaded = chosen.load(folder)
    assert loaded is not None
    batches = edge_batches(job.model, job.head)
    return max(verify(loaded, with_settings(find("cpu"), job), model, batches).values())


@FULL
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["onnx", "openvino", "torchscript", "huggingface"])
def test_every_head_computes_what_the_engine_does(
    form: str, kind: HeadKind, precision: Precision, tmp_path: Path
) -> None:
    if precision not in find_format(form).precisions:
        pytest.skip(f"{form} has no {precision}")
    found = compared(form, small(HEADS[kind]), precision, tmp_path)
    assert found < (1e-5 if precision == "fp32" else TOLERANCES[precision])
    assert (found > 1e-5) == (precision != "fp32")  # it is in that precision


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"])
def test_onnx_has_every_activation_and_the_fused_operators(act: str, fused: bool, tmp_path: Path) -> None:
    job = small(HEADS["classification"])
    job = dataclasses.replace(job, model=dataclasses.replace(CONFIG, hidden_act=act))
    assert compared("onnx", job, "fp32", tmp_path, fused=fused) < 1e-5
    import onnx

    onnx.checker.check_model(str(tmp_path / "model.onnx"), full_check=not fused)
    made = onnx.load(tmp_path / "model.onnx")
    operators = [node.op_type for node in made.graph.node]
    domains = {node.domain for node in made.graph.node}
    assert domains == ({"", "com.microsoft"} if fused else {""})
    assert operators.count("Attention") == (2 if fused else 0)
    assert operators.count("LayerNormalization") == (0 if fused else 5)
    assert [entry.version for entry in made.opset_import if not entry.domain] == [17]


@FULL
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_form_has_every_head_and_precision(kind: HeadKind, precision: Precision, tmp_path: Path) -> None:
    assert compared("onnx", small(HEADS[kind]), precision, tmp_path, fused=True) < TOLERANCES[precision]


def test_another_softmax_and_one_segment_change_nothing_for_the_worse(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, type_vocab_size=1, softmax="fp32", layer_norm_eps=1e-5)
    from bertkit.model.parameters import initial

    job = Job(config, HEADS["span"], initial(config, HEADS["span"], 3))
    assert compared("onnx", job, "fp32", tmp_path) < 1e-5


def test_padding_may_stand_anywhere_and_fill_a_row(tmp_path: Path) -> None:
    """Tokens that are masked are seen by none; a row of them alone gives numbers, not NaN."""
    needs("onnx")
    job, form = small(HEADS["tokens"]), find_format("onnx")
    form.write(ExportedModel(job.model, job.head, job.weights, "fp32"), tmp_path)
    loaded = form.load(tmp_path)
    assert loaded is not None
    rng = np.random.default_rng(1)
    inputs = {"input_ids": rng.integers(0, CONFIG.vocab_size, (3, 9)).astype(np.int32)}
    inputs |= {"token_type_ids": np.zeros((3, 9), np.int32), "attention_mask": np.ones((3, 9), np.int32)}
    inputs["attention_mask"][1, 4] = inputs["attention_mask"][2] = 0
    before = loaded(inputs)["logits"]
    changed = {name: array.copy() for name, array in inputs.items()}
    changed["input_ids"][1, 4] = (changed["input_ids"][1, 4] + 1) % CONFIG.vocab_size
    after = loaded(changed)["logits"]
    assert np.isfinite(before).all()
    real = inputs["attention_mask"][1] > 0
    np.testing.assert_array_equal(before[1][real], after[1][real])
    assert np.abs(before[1] - after[1]).max() > 0


def test_over_two_gigabytes_the_weights_are_in_a_file_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs("onnx")
    monkeypatch.setattr("bertkit_onnx.graph.LARGEST", 100_000)
    assert compared("onnx", small(HEADS["classification"]), "fp32", tmp_path) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx").stat().st_size < 50_000


@pytest.mark.slow
def test_a_base_model_is_written_in_seconds(tmp_path: Path) -> None:
    needs("onnx")
    import time

    from bertkit.model.parameters import initial

    config = ARCHITECTURES["base"]
    model = ExportedModel(config, HEADS["span"], initial(config, HEADS["span"], 1), "fp32")
    begun = time.process_time()
    find_format("onnx").write(model, tmp_path)
    assert time.process_time() - begun < 15


@pytest.mark.parametrize("names", ["bertkit", "nvidia"])
def test_a_triton_repository_holds_the_model_and_a_configuration_of_tritons_own(names: str, tmp_path: Path) -> None:
    assert compared("triton", small(HEADS["span"]), "fp32", tmp_path, names=names, name="m", threads=2) < 1e-5
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["1", "config.pbtxt", "m", "model.onnx"]
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2 as proto

    made = text_format.Parse((tmp_path / "m" / "config.pbtxt").read_text(), proto.ModelConfig())
    assert (made.name, made.backend, made.max_batch_size) == ("m", "onnxruntime", 64)
    assert made.parameters["intra_op_thread_count"].string_value == "2"
    assert [list(one.dims) for one in (*made.input, *made.output)] == [[-1]] * 5
    inputs = {one.name: one.data_type for one in made.input}
    outputs = [one.name for one in made.output]
    if names == "nvidia":
        assert inputs == dict.fromkeys(("input__0", "input__1", "input__2"), proto.TYPE_INT32)
        assert outputs == ["output__0", "output__1"]
    else:
        assert inputs == dict.fromkeys(("input_ids", "attention_mask", "token_type_ids"), proto.TYPE_INT64)
        assert outputs == ["start_logits", "end_logits"]
    assert [one.inputs[next(iter(inputs))].dims[0] for one in made.model_warmup] == [16, 40]


@pytest.mark.parametrize(
    ("kind", "settings", "wanted"),
    [
        ("tokens", {"text": True}, "--option text=true has no tokens head"),
        ("classification", {"text": True}, "the model has no vocabulary of words"),
        ("classification", {"name": "../up"}, "--option name=../up is no name of a model"),
        ("classification", {"max_batch": 0}, "--option max_batch=0 is below 1"),
    ],
)
def test_what_triton_cannot_have_is_refused(
    kind: HeadKind, settings: dict[str, str | int | bool], wanted: str, tmp_path: Path
) -> None:
    form, job = find_format("triton"), small(HEADS[kind])
    known = {name: setting.default for name, setting in form.settings.items()} | settings
    model = ExportedModel(job.model, job.head, job.weights, "fp32", settings=known)
    if kind == "tokens":
        from bertkit.engine.exports import TextRules

        rules = TextRules("{}", True, 32, 8, 8, 20, 30, None)
        model = dataclasses.replace(model, texts=rules)
    with pytest.raises(UserError, match=wanted):
        form.write(model, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("form", "extra"), [("onnx", "onnx"), ("openvino", "openvino"), ("triton", "triton-export")])
def test_without_its_packages_a_format_is_refused_in_one_line(
    form: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("bertkit_onnx.formats.metadata.version", absent)
    with pytest.raises(UserError) as refused:
        find_format(form).check()
    assert refused.value.cause.startswith(f"--format {form} needs ")
    assert refused.value.cure == f"pip install 'bertkit[{extra}]'"


def test_without_transformers_the_folder_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertkit_huggingface._transformers", lambda: "")
    job, form = small(HEADS["classification"]), find_format("huggingface")
    form.write(ExportedModel(job.model, job.head, job.weights, "fp32"), tmp_path)
    assert form.load(tmp_path) is None
    monkeypatch.setattr("bertkit_huggingface._same", lambda one, other: False)
    with pytest.raises(UserError, match="is not what was written"):
        form.write(ExportedModel(job.model, job.head, job.weights, "fp32"), tmp_path)


def test_all_formats_are_installed() -> None:
    assert set(format_names()) >= {*NEEDS, "savedmodel"}
