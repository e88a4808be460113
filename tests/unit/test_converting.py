"""`bertkit convert` between TensorFlow 1, Hugging Face's folders and runs: to the bit, or one line that says why."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tf1_bundles
from bertkit.cli.main import main
from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, write_arrays, write_sealed_arrays
from bertkit.model.checkpoint import Checkpoints, Progress
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.formats import convert as converting
from bertkit.model.formats import names as weight_names
from bertkit.model.formats.convert import convert
from bertkit.model.formats.names import from_tf1, in_dialect, ours, tf1_state, to_tf1
from bertkit.model.formats.targets import find_target
from bertkit.model.formats.tf1_bundle import read_bundle, read_index, write_bundle
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import initial, shapes
from bertkit.model.vocabulary import SPECIAL
from left_over import ended_process, left_by

CONFIG = ModelConfig(8, 2, 2, 16, vocab_size=12, max_position_embeddings=6)
HEADS = (Head("pretraining", 2), Head("classification", 3), Head("span", 2))
FILES = (".index", ".data-00000-of-00001")
TURNED = r"layer.0.intermediate.dense.weight is \(8, 16\), but the config asks for \(16, 8\)"
PAIR = ("bert/encoder/layer_0/intermediate/dense/kernel", "bert/encoder/layer_0/output/dense/kernel")


def words(folder: Path, pieces: int = 12) -> None:
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *(f"word{n}" for n in range(pieces - len(SPECIAL)))]))


def hf_folder(folder: Path, head: Head = HEADS[0], **more: np.ndarray) -> Path:
    folder.mkdir(parents=True)
    words(folder)
    (folder / "config.json").write_text(json.dumps(to_mapping(CONFIG, head, ())))
    write_arrays(folder / "model.safetensors", initial(CONFIG, head, 1) | more, {})
    return folder


@pytest.fixture
def google(tmp_path: Path) -> Path:
    """A TensorFlow 1 checkpoint's prefix in a folder of its own."""
    convert(hf_folder(tmp_path / "hf"), tmp_path / "google" / "bert_model.ckpt")
    return tmp_path / "google" / "bert_model.ckpt"


def rewrite(prefix: Path, change: Any) -> None:
    """Change the variables of a checkpoint; `change` gets them by name."""
    arrays = {name: array.copy() for name, array in read_bundle(read_index(prefix)).items()}
    change(arrays)
    write_bundle(prefix, arrays)


def file(prefix: Path, ending: str) -> Path:
    return prefix.with_name(prefix.name + ending)


def test_googles_checkpoint_to_hugging_face_and_back_bit_for_bit(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "tf1" / "keras_bert_fixture"
    report = convert(source, tmp_path / "hf", moments=True)
    assert (report.kind, report.form, report.tensors, report.moments, report.notes) == ("tf1", "hf", 46, 93, ())
    back = tmp_path / "back" / "bert_model.ckpt"
    convert(tmp_path / "hf", back, moments=True)
    for ending in FILES:
        assert file(back, ending).read_bytes() == file(source / "bert_model.ckpt", ending).read_bytes()
    assert (back.parent / "vocab.txt").read_bytes() == (source / "vocab.txt").read_bytes()
    configs = [json.loads((folder / "bert_config.json").read_text()) for folder in (back.parent, source)]
    assert configs[0] == configs[1]


def test_without_moments_the_weights_alone_go_there_and_back(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "tf1" / "keras_bert_fixture" / "bert_model.ckpt"
    report = convert(source, tmp_path / "hf")
    assert report.notes[0].endswith("and 90 more variables of a training")
    convert(tmp_path / "hf", tmp_path / "back.ckpt")
    theirs, mine = read_index(source), read_index(tmp_path / "back.ckpt")
    assert list(mine.entries) == [name for name in theirs.entries if tf1_state(name) is None]
    for name, entry in mine.entries.items():
        other = theirs.entries[name]
        assert (entry.dtype, entry.shape, entry.size, entry.crc) == (other.dtype, other.shape, other.size, other.crc)


def test_every_name_of_a_real_checkpoint_has_one_of_ours(real_data: Path) -> None:
    index = read_index(real_data / "tf1" / "uncased_base_names" / "bert_model.ckpt")
    for name in index.entries:
        mine = from_tf1(name)
        assert mine is not None
        assert to_tf1(mine) == name
    config = ModelConfig(512, 8, 8, 2048)
    assert {from_tf1(name) for name in index.entries} == set(shapes(config, HEADS[0]))


@pytest.mark.parametrize("head", HEADS)
def test_every_parameter_has_a_name_in_every_system(head: Head) -> None:
    for name in shapes(CONFIG, head):
        theirs = to_tf1(name)
        assert theirs is not None
        assert from_tf1(theirs) == name
        for dialect in ("nvidia", "mlperf"):
            assert ours(in_dialect(name, dialect)) == name
            assert ours(f"module.{in_dialect(name, dialect)}") == name


@pytest.mark.parametrize("head", HEADS, ids=lambda head: head.kind)
def test_every_head_survives(head: Head, tmp_path: Path) -> None:
    source = hf_folder(tmp_path / "hf", head)
    convert(source, tmp_path / "tf.ckpt")
    convert(tmp_path / "tf.ckpt", tmp_path / "back")
    first, second = (read_arrays(folder / "model.safetensors")[0] for folder in (source, tmp_path / "back"))
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "back")]
    assert configs[0] == configs[1]


def test_a_bare_encoder_without_a_pooler_survives(tmp_path: Path) -> None:
    source = hf_folder(tmp_path / "hf", HEADS[2])
    kept = {k: v for k, v in read_arrays(source / "model.safetensors")[0].items() if k.startswith("bert.e")}
    write_arrays(source / "model.safetensors", kept, {})
    (source / "config.json").write_text(json.dumps(to_mapping(CONFIG, HEADS[2], ()) | {"architectures": ["BertModel"]}))
    assert convert(source, tmp_path / "tf.ckpt").tensors == len(kept)
    convert(tmp_path / "tf.ckpt", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["architectures"] == ["BertModel"]


def test_a_mixed_up_name_map_is_caught_by_name(google: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = dict(weight_names._names())
    one, other = (str(from_tf1(name)).replace(".0.", ".{n}.") for name in PAIR)
    names["tf1"] = names["tf1"] | {one: names["tf1"][other], other: names["tf1"][one]}
    weight_names._from_tf1.cache_clear()
    monkeypatch.setattr(weight_names, "_names", lambda: names)
    try:
        with pytest.raises(UserError, match=TURNED):
            convert(google, tmp_path / "out")
    finally:
        weight_names._from_tf1.cache_clear()
    assert not (tmp_path / "out").exists()


def cut(prefix: Path, into: Path, **others: tuple[int, bytes]) -> None:
    """A checkpoint as a training on parameter servers saves it: its larger variables in parts."""
    arrays = {name: array.copy() for name, array in read_bundle(read_index(prefix)).items()}
    larger = {name: array for name, array in arrays.items() if array.ndim == 2 and len(array) > 3}
    partitions = {name: tf1_bundles.rows(len(array), 3) for name, array in larger.items()}
    assert len(partitions) > 10
    tf1_bundles.write(into, arrays, partitions, others)
    shutil.copy(prefix.parent / "bert_config.json", into.parent)
    shutil.copy(prefix.parent / "vocab.txt", into.parent)


def test_partitioned_variables_are_joined(google: Path, tmp_path: Path) -> None:
    cut(google, tmp_path / "parts" / "model.ckpt-20")
    report = convert(tmp_path / "parts", tmp_path / "out")
    assert (report.kind, report.notes) == ("tf1", ())
    convert(tmp_path / "out", tmp_path / "back" / "bert_model.ckpt")
    for ending in FILES:
        assert file(tmp_path / "back" / "bert_model.ckpt", ending).read_bytes() == file(google, ending).read_bytes()
    fit = starting_weights(find_source(str(tmp_path / "parts" / "model.ckpt-20")), HEADS[0], 1)
    assert (fit.missing, fit.unexpected, fit.notes) == ((), (), ())


def test_variables_that_no_bert_has_are_passed_over_by_name(google: Path, tmp_path: Path) -> None:
    others = {
        "best_metric/name": (tf1_bundles.STRING, b"\4acc."),
        "save_counter/done": (tf1_bundles.BOOL, b"\1"),
        "wave": (tf1_bundles.COMPLEX64, bytes(8)),
        "odd": (77, b"?"),
    }
    cut(google, tmp_path / "more" / "model.ckpt-20", **others)
    said = ["best_metric/name (string)", "odd (number 77)", "save_counter/done (bool)", "wave (complex64)"]
    report = convert(tmp_path / "more", tmp_path / "out")
    assert report.notes == tuple(f"left out, since no BERT has it: {text}" for text in said)
    fit = starting_weights(find_source(str(tmp_path / "more" / "model.ckpt-20")), HEADS[0], 1)
    assert fit.notes == (f"not read: {', '.join(said)}",)
    assert fit.unexpected == ()


def test_a_weight_of_such_a_dtype_is_refused(google: Path, tmp_path: Path) -> None:
    arrays = {name: array.copy() for name, array in read_bundle(read_index(google)).items()}
    name = "bert/pooler/dense/bias"
    del arrays[name]
    tf1_bundles.write(tmp_path / "x.ckpt", arrays, others={name: (tf1_bundles.COMPLEX64, bytes(64))})
    with pytest.raises(UserError, match=f"x.ckpt.index: {name} is of dtype complex64, which is not read here"):
        convert(tmp_path / "x.ckpt", tmp_path / "out")


@pytest.mark.parametrize("start", ["module/", "module_1/", "module/module_2/"])
def test_names_of_tensorflow_hub_are_known(start: str, google: Path, tmp_path: Path) -> None:
    """A training that began with a module of TensorFlow Hub: its head has a name of its own."""

    def hub(arrays: dict[str, np.ndarray]) -> None:
        for name in list(arrays):
            arrays[start + name] = arrays[f"{start}{name}/adam_m"] = arrays.pop(name)

    wanted = convert(google, tmp_path / "plain")
    rewrite(google, hub)
    report = convert(google, tmp_path / "out", moments=True)
    assert (report.tensors, report.moments) == (wanted.tensors, wanted.tensors)
    first, second = (read_arrays(tmp_path / name / "model.safetensors")[0] for name in ("plain", "out"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


def test_a_variable_under_both_names_is_refused(google: Path, tmp_path: Path) -> None:
    rewrite(google, lambda arrays: arrays.update({f"module/{PAIR[0]}": arrays[PAIR[0]]}))
    with pytest.raises(UserError, match=r"module/bert/.* and another variable are both bert\.encoder\.layer\.0"):
        convert(google, tmp_path / "out")


def test_a_hub_modules_folder_is_read(google: Path, tmp_path: Path) -> None:
    (tmp_path / "hub" / "variables").mkdir(parents=True)
    for ending in FILES:
        shutil.copy(file(google, ending), tmp_path / "hub" / "variables" / f"variables{ending}")
    config = str(google.parent / "bert_config.json")
    assert convert(tmp_path / "hub", tmp_path / "out", config=config).tensors == 46


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_not_converted(value: float, google: Path, tmp_path: Path) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays[PAIR[0]][1, 2] = value

    rewrite(google, spoil)
    with pytest.raises(UserError, match=r"layer\.0\.intermediate\.dense\.weight holds (NaN|infinity): 1 of its 128"):
        convert(google, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_safetensors_file_alone_is_converted(google: Path, tmp_path: Path) -> None:
    report = convert(tmp_path / "hf" / "model.safetensors", tmp_path / "x.ckpt")
    assert (report.kind, report.tensors) == ("hf", 46)
    assert file(tmp_path / "x.ckpt", FILES[1]).read_bytes() == file(google, FILES[1]).read_bytes()


def swap(arrays: dict[str, np.ndarray]) -> None:
    arrays[PAIR[0]], arrays[PAIR[1]] = arrays[PAIR[1]], arrays[PAIR[0]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap, TURNED),
        (lambda a: a.pop("bert/pooler/dense/bias"), r"lacks bert.pooler.dense.bias \(8,\)"),
        (lambda a: a.pop("cls/seq_relationship/output_bias"), r"lacks cls.seq_relationship.bias \(2,\)"),
        (lambda a: a.update({"my/own": np.zeros(3)}), r"my/own \(3,\) is no variable of a BERT"),
        (
            lambda a: a.update({"bert/encoder/layer_2/output/dense/bias": np.zeros(8)}),
            r"layer.2.output.dense.bias \(8,\) is no parameter of a BERT of 2 layers",
        ),
        (lambda a: a.update({f"{PAIR[0]}/adam_m": np.zeros((2, 2))}), None),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_shape(
    change: Any, said: str | None, google: Path, tmp_path: Path
) -> None:
    rewrite(google, change)
    moments = said is None
    with pytest.raises(UserError, match=said or r"adam.first.*intermediate.dense.weight is \(2, 2\)") as caught:
        convert(google, tmp_path / "out", moments=moments)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))
    if said and "my/own" in said:
        assert "left out: my/own (3,)" in convert(google, tmp_path / "out", leave_out=["my/*"]).notes


def test_slots_of_other_optimizers_are_a_trainings_state(google: Path, tmp_path: Path) -> None:
    def lamb(arrays: dict[str, np.ndarray]) -> None:
        for name in list(arrays):
            arrays[f"{name}/LAMB"], arrays[f"{name}/LAMB_1"] = arrays[name] + 1, arrays[name] + 2
        arrays["global_step"] = np.array(5, np.int64)
        arrays["beta1_power"] = np.array(0.5, np.float32)

    rewrite(google, lamb)
    assert convert(google, tmp_path / "hf2", moments=True).notes == ("left out: beta1_power",)
    weights, moments = (read_arrays(tmp_path / "hf2" / f"{n}.safetensors")[0] for n in ("model", "moments"))
    assert float(moments["adam.step"]) == 5
    for name, array in weights.items():
        assert np.array_equal(moments[f"adam.first.{name}"], array + 1)
        assert np.array_equal(moments[f"adam.second.{name}"], array + 2)


def test_a_decoder_of_its_own_is_refused(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "hf", **{"cls.predictions.decoder.weight": np.zeros((12, 8), np.float32)})
    with pytest.raises(UserError, match=r"cls.predictions.decoder.weight \(12, 8\) is not bert.embeddings"):
        convert(folder, tmp_path / "x.ckpt")


def test_padding_of_the_vocabulary_is_left_out(tmp_path: Path) -> None:
    name = "bert.embeddings.word_embeddings.weight"
    table = np.pad(initial(CONFIG, HEADS[1], 1)[name], [(0, 4), (0, 0)])
    report = convert(hf_folder(tmp_path / "hf", HEADS[1], **{name: table}), tmp_path / "x.ckpt")
    assert report.notes == (f"left out: 4 rows of padding of {name}, all zero",)
    assert read_index(tmp_path / "x.ckpt").entries["bert/embeddings/word_embeddings"].shape == (12, 8)


def test_a_runs_checkpoint_brings_its_moments(tmp_path: Path) -> None:
    folder = hf_folder(tmp_path / "run", HEADS[1])
    weights = initial(CONFIG, HEADS[1], 2)
    state = {f"model.{name}": array for name, array in weights.items()} | {"adam.step": np.array(3.0)}
    state |= {f"adam.{kind}.{name}": array * 2 for name, array in weights.items() for kind in ("first", "second")}
    write_arrays(folder / "checkpoints" / "step-00000003.safetensors", state, {})
    source = folder / "checkpoints" / "step-00000003.safetensors"
    assert convert(source, tmp_path / "plain.ckpt").notes == ("left out: the moments",)
    convert(source, tmp_path / "x" / "model.ckpt-3", moments=True)
    arrays = read_bundle(read_index(tmp_path / "x" / "model.ckpt-3"))
    assert arrays["global_step"] == 3
    kernel = "bert/encoder/layer_1/output/dense/kernel"
    assert np.array_equal(arrays[kernel].T, weights["bert.encoder.layer.1.output.dense.weight"])
    assert np.array_equal(arrays[f"{kernel}/adam_m"], arrays[kernel] * 2)


def test_config_and_vocabulary_may_come_from_elsewhere(google: Path, tmp_path: Path) -> None:
    (google.parent / "vocab.txt").unlink()
    shutil.move(google.parent / "bert_config.json", tmp_path / "c.json")
    with pytest.raises(UserError, match=r"no config.json or bert_config.json beside it; give one with --config"):
        convert(google, tmp_path / "out")
    report = convert(google, tmp_path / "out", config=str(tmp_path / "c.json"))
    assert report.notes == ("there is no vocab.txt beside it: give one with --vocab",)
    assert report.files == ("config.json", "model.safetensors")
    report = convert(
        google, tmp_path / "two", config=str(tmp_path / "c.json"), vocab=str(tmp_path / "hf" / "vocab.txt")
    )
    assert "tokenizer.json" in report.files


def test_a_vocabulary_of_another_model_is_refused(google: Path, tmp_path: Path) -> None:
    words(google.parent, 20)
    with pytest.raises(UserError, match="has 20 word pieces but the model"):
        convert(google, tmp_path / "out")


def test_nothing_is_written_over_unasked(google: Path, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in google.parent.iterdir()}
    with pytest.raises(UserError, match=r"google already holds bert_model.ckpt.index; use --overwrite"):
        convert(tmp_path / "hf", google)
    (google.parent / "bert_model.ckpt.meta").write_bytes(b"an older graph")
    convert(tmp_path / "hf", google, overwrite=True)
    assert {path.name: path.read_bytes() for path in google.parent.iterdir()} == before
    config = google.parent / "bert_config.json"
    config.write_text(json.dumps(json.loads(config.read_text())))  # the same, spelled otherwise: theirs stays
    convert(tmp_path / "hf", google.with_name("second.ckpt"))
    assert len(config.read_text().splitlines()) == 1
    (google.parent / "vocab.txt").write_text("another")
    google.with_name("bert_model.ckpt.index").unlink()
    google.with_name("bert_model.ckpt.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match=r"google already holds vocab.txt, and of other content"):
        convert(tmp_path / "hf", google)
    with pytest.raises(UserError, match="itself"):
        convert(tmp_path / "hf", tmp_path / "hf", overwrite=True)


def test_what_does_not_read_back_is_not_left(google: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = converting.write_arrays

    def wrong(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> None:
        real(path, arrays | {"bert.pooler.dense.bias": np.ones(8, np.float32)}, metadata)

    monkeypatch.setattr(converting, "write_arrays", wrong)
    with pytest.raises(UserError, match=r"bert.pooler.dense.bias does not read back"):
        convert(google, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["google", "hf"]


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "folder that is there"])
def test_a_second_conversion_to_one_place_is_refused(
    there: bool, google: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, write = tmp_path / "target", converting.write
    if there:
        target.mkdir()
    refused: list[str] = []

    def meanwhile(*given: Any) -> list[str]:
        with pytest.raises(UserError) as caught:
            convert(google, target)
        refused.append(str(caught.value))
        return write(*given)

    monkeypatch.setattr(converting, "write", meanwhile)
    convert(google, target)
    assert len(refused) == 1
    assert "target: a conversion is under way there" in refused[0]
    assert not [path for path in (*target.iterdir(), *tmp_path.iterdir()) if path.name.startswith(".")]


@pytest.mark.parametrize("there", [False, True], ids=["new folder", "folder that is there"])
def test_what_a_killed_conversion_left_is_swept(there: bool, google: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if there:
        target.mkdir()
    left = left_by(ended_process(), (target if there else tmp_path) / "convert")
    left.unlink()
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    convert(google, target)
    assert not left.exists()
    assert not [path for path in (*target.iterdir(), *tmp_path.iterdir()) if path.name.startswith(".")]


@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_a_runs_damaged_checkpoint_is_refused(ending: str, tmp_path: Path) -> None:
    weights = {f"model.{name}": array for name, array in initial(CONFIG, HEADS[0], 1).items()}
    run = hf_folder(tmp_path / "run")
    path = Checkpoints(run / "checkpoints").save(weights, Progress(3, {}, losses=(1.0, 0.5, 0.25)))
    damaged = path.with_suffix(ending)
    content = bytearray(damaged.read_bytes())
    content[-200] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match=r"does not match its (checksum|seal)"):
        convert(path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_a_flipped_bit_in_moments_is_refused(google: Path, tmp_path: Path) -> None:
    run = hf_folder(tmp_path / "with")
    moments = {f"{start}{name}": np.ones(shape, np.float32) for name, shape in shapes(CONFIG, HEADS[0]).items()
               for start in ("adam.exp_avg.", "adam.exp_avg_sq.")}  # fmt: skip
    write_sealed_arrays(run / "moments.safetensors", moments, {})
    content = bytearray((run / "moments.safetensors").read_bytes())
    content[-7] ^= 1
    (run / "moments.safetensors").write_bytes(content)
    with pytest.raises(UserError, match="does not match its seal"):
        convert(run, tmp_path / "target", moments=True)


def test_a_full_disk_leaves_nothing(google: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(folder: Path, *rest: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(converting, "write_tokenizer", full)
    with pytest.raises(UserError, match="out: cannot be written: No space left on device"):
        convert(google, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["google", "hf"]


@pytest.mark.parametrize(
    ("destination", "to", "form", "folder", "name"),
    [
        ("a/b", "", "hf", "a/b", ""),
        ("a/b", "hf", "hf", "a/b", ""),
        ("a/bert_model.ckpt", "", "tf1", "a", "bert_model.ckpt"),
        ("a/model.ckpt-28252", "", "tf1", "a", "model.ckpt-28252"),
        ("a/b", "tf1", "tf1", "a/b", "bert_model.ckpt"),
        ("a/b.pt", "mlperf", "pt", "a", "b.pt"),
    ],
)
def test_the_form_follows_from_the_option_or_the_ending(
    destination: str, to: str, form: str, folder: str, name: str
) -> None:
    target = find_target(Path(destination), to)
    assert (target.form, target.folder, target.name) == (form, Path(folder), name)


@pytest.mark.parametrize(
    ("destination", "to", "said"),
    [
        ("b.pt", "", "a .pt file has two dialects; say which: --to nvidia or --to mlperf"),
        ("b", "nvidia", "give DST the ending .pt"),
        ("b", "tf2", "--to tf2 is not known; did you mean tf1"),
        ("b.safetensors", "", "models are folders"),
    ],
)
def test_a_form_that_is_not_clear_is_asked_for(destination: str, to: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_target(Path(destination), to)


def test_a_source_that_is_none_is_named(google: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_bundle(google.with_name("second.ckpt"), {"x": np.zeros(1, np.float32)})
    (tmp_path / "notes.txt").write_text("x")
    for source, said in [
        ("empty", "holds no checkpoint that is known"),
        ("absent", "is no folder and no file"),
        ("google", r"holds 2 checkpoints; name one, as .*second.ckpt"),
        ("notes.txt", "is no checkpoint that is known"),
    ]:
        with pytest.raises(UserError, match=said):
            convert(tmp_path / source, tmp_path / "out")


@pytest.mark.parametrize("ending", ["", ".index", ".data-00000-of-00001"])
def test_a_checkpoint_starts_a_model_directly(ending: str, google: Path) -> None:
    source = find_source(str(file(google, ending)))
    assert source.folder == google.parent
    fit = starting_weights(source, HEADS[0], 1)
    assert (fit.missing, fit.unexpected, fit.reshaped) == ((), (), ())
    wanted = initial(CONFIG, HEADS[0], 1)
    assert all(np.array_equal(fit.weights[name], wanted[name]) for name in wanted)
    assert all(array.flags.c_contiguous and array.flags.writeable for array in fit.weights.values())


def test_the_command_says_what_it_did(google: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(google), str(tmp_path / "out")])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert f"{tmp_path}/out (hf): 46 tensors" in said.out
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(google), str(tmp_path / "out"), "--json", "--overwrite"])
    report = json.loads(capsys.readouterr().out)
    assert (ended.value.code, report["kind"], report["tensors"]) == (0, "tf1", 46)
    shard = file(google, FILES[1])
    shard.write_bytes(shard.read_bytes()[:-4])
    with pytest.raises(SystemExit, match="2"):
        main(["convert", str(google), str(tmp_path / "three")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("bertkit: ")
    assert "is cut off" in last
    assert not (tmp_path / "three").exists()
