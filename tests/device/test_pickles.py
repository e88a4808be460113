"""Torch's own files: real ones are read, damaged ones are named, and none runs code."""

from __future__ import annotations

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.model.weights import read_weights

torch = pytest.importorskip("torch")
from bertkit_torch.archives import check_archive  # noqa: E402


@pytest.mark.parametrize("name", ["camphr_bert-test", "camphr_bert_52K"])
def test_real_files_are_read(real_data: Path, name: str) -> None:
    stored = read_weights(real_data / "hf_fixtures" / name)
    path, arrays = stored.path, stored.arrays
    assert path.name == "pytorch_model.bin"
    assert any(key.startswith("bert.encoder.layer.0.attention.self.query") for key in arrays)
    expected = torch.load(path, map_location="cpu", weights_only=True)
    ours = {key.removeprefix("bert."): array for key, array in arrays.items()}
    for key, tensor in expected.items():
        plain = key.removeprefix("bert.").replace("gamma", "weight").replace("beta", "bias")
        if plain in ours:
            assert np.array_equal(ours[plain], tensor.float().numpy()), key
    assert len(ours) > 10


def test_nvidias_files_nest_the_weights(tmp_path: Path) -> None:
    state = {"module.bert.pooler.dense.weight": torch.eye(3, dtype=torch.bfloat16)}
    torch.save({"model": state, "epoch": 1}, tmp_path / "pytorch_model.bin")
    arrays = read_weights(tmp_path).arrays
    assert np.array_equal(arrays["bert.pooler.dense.weight"], np.eye(3, dtype=np.float32))


class Harmful:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch '{self.mark}'",)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    torch.save({"bert.x": torch.ones(1), "y": Harmful(mark)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="could run code"):
        read_weights(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful(mark)))
    with pytest.raises(UserError):
        read_weights(tmp_path)
    assert not mark.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x02 no pickle", b"text"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"pytorch_model\.bin"):
        read_weights(tmp_path)


def test_a_damaged_pickle_does_not_take_the_memory_that_it_asks_for(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.zeros(2)}, tmp_path / "sound.bin")
    far = b"\x80\x02}r" + (1 << 25).to_bytes(4, "little") + b"."  # remembers a dict at place 33,554,432
    with zipfile.ZipFile(tmp_path / "sound.bin") as sound, zipfile.ZipFile(path, "w") as made:
        for name in sound.namelist():
            made.writestr(name, far if name.endswith("data.pkl") else sound.read(name))
    tracemalloc.start()
    try:
        assert not check_archive(path)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
    with pytest.raises(UserError, match="cannot be compared"):
        read_weights(tmp_path)


def test_a_file_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UserError, match="no state dict"):
        read_weights(tmp_path)
