"""Files of torch.save as people bring them: nested, prefixed, sharded, with odd tensors, damaged, or harmful."""

from __future__ import annotations

import json
import random
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.formats.convert import convert
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import initial
from bertkit.model.vocabulary import SPECIAL
from bertkit.model.weights import read_weights

torch = pytest.importorskip("torch")
CONFIG = ModelConfig(8, 2, 2, 16, vocab_size=12, max_position_embeddings=6)
HEAD = Head("classification", 2)
BIAS = "bert.pooler.dense.bias"


def weights() -> dict[str, np.ndarray]:
    return initial(CONFIG, HEAD, 3)


def tensors() -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in weights().items()}


def model(folder: Path, state: object, name: str = "pytorch_model.bin") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_mapping(CONFIG, HEAD, ())))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *(f"word{n}" for n in range(12 - len(SPECIAL)))]))
    # pickle looks for a dtype in all modules; those of transformers then import what is not installed
    hidden = {name: sys.modules.pop(name) for name in [*sys.modules] if name.partition(".")[0] == "transformers"}
    try:
        torch.save(state, folder / name)
    finally:
        sys.modules.update(hidden)
    return folder


def as_given(place: Path) -> bool:
    """Whether the model at `place` starts with the weights above, all of them."""
    fit = starting_weights(find_source(str(place)), HEAD, 1)
    same = all(np.array_equal(fit.weights[name], array) for name, array in weights().items())
    return same and not fit.missing and not fit.unexpected


NESTS: list[Callable[[dict[str, Any]], Any]] = [
    lambda state: state,
    lambda state: {"state_dict": state, "epoch": 3},
    lambda state: {"model_state_dict": state, "epoch": 3, "optimizer_state_dict": {}},
    lambda state: {"model": state, "optimizer": {}, "epoch": 1},
    lambda state: {"module": state, "dp_world_size": 8},
    lambda state: {"model": {"state_dict": {"model": state}}},
    lambda state: {"model": {}, "state_dict": state},
]


@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod.", "model._orig_mod.module."]
)
@pytest.mark.parametrize("nest", NESTS, ids=range(len(NESTS)))
def test_nests_and_prefixes_are_understood(nest: Callable[[dict[str, Any]], Any], prefix: str, tmp_path: Path) -> None:
    place = model(tmp_path / "m", nest({prefix + name: tensor for name, tensor in tensors().items()}))
    assert as_given(place)
    convert(place, tmp_path / "out")
    found = read_arrays(tmp_path / "out" / "model.safetensors")[0]
    assert all(found[name].tobytes() == array.tobytes() for name, array in weights().items())


@pytest.mark.parametrize("name", ["pytorch_model.bin", "x.bin", "x.pt", "x.pth", "x.ckpt"])
def test_every_ending_is_taken_by_every_command(name: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", {"state_dict": tensors(), "epoch": 1}, name)
    torch.save({"step": 3}, folder / "optimizer.pt")  # beside it, as trainers leave it
    torch.save({"step": 3}, folder / "rng_state.pth")
    assert as_given(folder / name)
    assert convert(folder / name, tmp_path / "one").notes == ("left out: epoch",)
    if name != "x.bin":  # any .bin may lie in a folder: only that of transformers' name is its model
        assert as_given(folder)
        convert(folder, tmp_path / "two")


def test_several_state_dicts_are_not_chosen_among(tmp_path: Path) -> None:
    place = model(tmp_path / "m", {"model": tensors(), "state_dict": tensors()})
    with pytest.raises(UserError, match=r"holds several state dicts: state_dict, model; save the one that you want"):
        read_weights(place)


@pytest.mark.parametrize(
    ("state", "keys"),
    [({"epoch": 1, "net": {"x": 1}}, "epoch, net"), ({"model": {"a": 1}, "epoch": 2}, "a"), ({}, ""), ([1], "")],
)
def test_a_file_without_a_state_dict_names_its_keys(state: object, keys: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no state dict of tensors") as caught:
        read_weights(model(tmp_path / "m", state))
    assert (f"its keys are {keys}" in caught.value.cause) == bool(keys)


def shard(folder: Path, prefix: str = "") -> Path:
    """The model in two files and an index, as transformers wrote them until 2023."""
    model(folder, {})
    (folder / "pytorch_model.bin").unlink()
    parts: list[dict[str, Any]] = [{}, {}]
    for number, (name, tensor) in enumerate(tensors().items()):
        parts[number % 2][prefix + name] = tensor
    for number, part in enumerate(parts):
        torch.save(part, folder / f"pytorch_model-0000{number + 1}-of-00002.bin")
    places = {name: f"pytorch_model-0000{n + 1}-of-00002.bin" for n, part in enumerate(parts) for name in part}
    size = sum(array.nbytes for array in weights().values())
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": places})
    (folder / "pytorch_model.bin.index.json").write_text(text)
    return folder


@pytest.mark.parametrize("prefix", ["", "module."])
def test_shards_are_read_through_their_index(prefix: str, tmp_path: Path) -> None:
    folder = shard(tmp_path / "m", prefix)
    assert as_given(folder)
    report = convert(folder, tmp_path / "out")
    assert (report.kind, report.notes) == ("hf", ())
    assert as_given(tmp_path / "out")
    (folder / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(UserError, match=r"pytorch_model-00002-of-00002\.bin: cannot be read: it is missing"):
        read_weights(folder)


PLAIN = {
    "parameter": lambda t: torch.nn.Parameter(t),
    "requires a gradient": lambda t: t.clone().requires_grad_(),
    "float64": lambda t: t.double(),
    "float16": lambda t: t.half(),
    "bfloat16": lambda t: t.bfloat16(),
    "turned": lambda t: torch.stack([t, t], 1)[:, 0],
    "shared": lambda t: torch.cat([t, t])[8:],
    "negated by a view": lambda t: torch._neg_view(-t),
}
NOT_READ = {
    "sparse_coo": lambda t: t.to_sparse(),
    "sparse_csr": lambda t: t.reshape(2, 4).to_sparse_csr(),
    "is quantized (qint8)": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
    "has no values (device meta)": lambda t: t.to("meta"),
    "is of dtype float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "is of dtype complex32": lambda t: t.to(torch.complex32),
    "repeats its values by strides": lambda t: t[:1].expand(10**13),
    "is of dtype int64, not a floating one": lambda t: t.long(),
    "is of dtype complex64, not a floating one": lambda t: t.to(torch.complex64),
    "is of dtype bool, not a floating one": lambda t: t.bool(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_tensors_of_any_making_are_read(kind: str, tmp_path: Path) -> None:
    state = tensors() | {BIAS: PLAIN[kind](torch.tensor([0.5, -2.0, 3.0, 1.0, 0.0, -1.0, 4.0, 8.0]))}
    fit = starting_weights(find_source(str(model(tmp_path / "m", state))), HEAD, 1)
    assert fit.weights[BIAS].tolist() == [0.5, -2, 3, 1, 0, -1, 4, 8]
    assert fit.weights[BIAS].dtype == np.float32
    assert fit.weights[BIAS].flags.c_contiguous


@pytest.mark.filterwarnings("ignore")  # torch speaks of its own quantized and sparse tensors
@pytest.mark.parametrize("kind", NOT_READ)
def test_tensors_that_are_not_read_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    state = tensors() | {BIAS: NOT_READ[kind](torch.ones(8))}
    place = model(tmp_path / "m", state)
    with pytest.raises(UserError) as caught:
        starting_weights(find_source(str(place)), HEAD, 1)
    assert BIAS in caught.value.cause
    assert kind in caught.value.cause
    with pytest.raises(UserError, match=BIAS):
        convert(place, tmp_path / "out")


@pytest.mark.filterwarnings("ignore")
def test_such_tensors_are_left_out_where_they_are_no_weights(tmp_path: Path) -> None:
    place = model(tmp_path / "m", tensors() | {"ema.shadow": torch.ones(8).to_sparse()})
    assert convert(place, tmp_path / "out").notes == ("left out: ema.shadow",)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    state = tensors()
    state["bert.embeddings.word_embeddings.weight"][3, 4] = value
    with pytest.raises(UserError, match=r"word_embeddings\.weight holds (NaN|infinity): 1 of its 96 numbers"):
        starting_weights(find_source(str(model(tmp_path / "m", state))), HEAD, 1)


def repack(path: Path, change: Callable[[str, bytes], bytes] = lambda name, raw: raw, how: int = 0) -> None:
    """Write the zip file anew, its records changed, its CRCs right."""
    with zipfile.ZipFile(path) as old:
        records = {name: change(name, old.read(name)) for name in old.namelist()}
    with zipfile.ZipFile(path, "w", how) as new:
        for name, raw in records.items():
            new.writestr(name, raw)


def test_a_flipped_bit_in_the_values_is_found(tmp_path: Path) -> None:
    path = model(tmp_path / "m", tensors()) / "pytorch_model.bin"
    raw = bytearray(path.read_bytes())
    place = raw.find(weights()["bert.encoder.layer.1.output.dense.weight"].tobytes())
    raw[place + 7] ^= 0x10
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"pytorch_model\.bin: its record .*/data/\d+ does not match its CRC"):
        read_weights(tmp_path / "m")


def test_a_file_without_crcs_is_read_since_torch_can_leave_them_out(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        assert as_given(model(tmp_path / "m", tensors()))
    finally:
        torch.serialization.set_crc32_options(True)


def test_a_file_that_was_zipped_again_is_read(tmp_path: Path) -> None:
    place = model(tmp_path / "m", tensors())
    repack(place / "pytorch_model.bin", how=zipfile.ZIP_DEFLATED)
    assert as_given(place)


def test_a_file_that_unpacks_to_far_more_is_refused(tmp_path: Path) -> None:
    place = model(tmp_path / "m", tensors())
    big = bytes(300 << 20)
    repack(place / "pytorch_model.bin", lambda name, raw: big if name.endswith("data/0") else raw, zipfile.ZIP_DEFLATED)
    assert (place / "pytorch_model.bin").stat().st_size < 1 << 20
    with pytest.raises(UserError, match=r"would unpack to 314,\d+,\d+ bytes"):
        read_weights(place)


def test_a_storage_beyond_its_record_is_refused(tmp_path: Path) -> None:
    place = model(tmp_path / "m", {BIAS: torch.ones(8)})
    repack(place / "pytorch_model.bin", lambda name, raw: raw.replace(b"K\x08t", b"J\0\0\0\x40t"))
    with pytest.raises(UserError, match=r"pytorch_model\.bin: is cut off or no torch file.*its record has 32"):
        read_weights(place)


def test_lists_that_double_at_every_level_do_not_fill_the_memory(tmp_path: Path) -> None:
    deep: list[Any] = [1]
    for _ in range(60):
        deep = [deep, deep]
    assert as_given(model(tmp_path / "m", {"state_dict": tensors(), "extra": deep}))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_program_and_a_module_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "m" / "x.pt"))
    with pytest.raises(UserError, match=r"x\.pt: is a TorchScript program, not weights"):
        read_weights(tmp_path / "m")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m" / "x.pt")
    with pytest.raises(UserError, match=r"could run code: Unsupported global: GLOBAL torch.nn.*its state_dict"):
        read_weights(tmp_path / "m")
    with zipfile.ZipFile(tmp_path / "m" / "x.pt", "w") as archive:
        archive.writestr("a.txt", "x")
    with pytest.raises(UserError, match=r"x\.pt: is a zip file, but none that torch\.save made"):
        read_weights(tmp_path / "m")


def mutated(raw: bytes, source: random.Random) -> bytes:
    made = bytearray(raw)
    for _ in range(source.choice((1, 1, 3, 9))):
        if not made:
            break
        place = source.randrange(len(made))
        kind = source.randrange(5)
        if kind == 0:
            made[place] ^= 1 << source.randrange(8)
        elif kind == 1:
            made[place : place + 4] = struct.pack("<I", source.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF)))
        elif kind == 2:
            del made[place : place + source.randrange(1, 9)]
        elif kind == 3:
            made[place:place] = source.randbytes(3)
        else:
            made = made[: max(place, 20)]
    return bytes(made)


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_one_line_or_loads_unharmed(form: str, seed: int, tmp_path: Path) -> None:
    """The zip form: also with its CRCs made right again, so that its pickle is what is damaged."""
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors(), path, _use_new_zipfile_serialization=form == "zip")
    sound = path.read_bytes()
    source = random.Random(seed)  # noqa: S311 - the same damage in every run
    said = []
    for number in range(60):
        path.write_bytes(sound)
        if form == "zip" and number % 2:
            repack(path, lambda name, raw: mutated(raw, source) if name.endswith("data.pkl") else raw)
        else:
            path.write_bytes(mutated(sound, source))
        try:
            read_weights(tmp_path)
        except UserError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(line.isprintable() and len(line) < 1000 for line in said)
