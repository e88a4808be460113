"""A sealed file is read as it was written, or refused: no flipped bit of it goes unseen."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.files.disk import (
    read_arrays,
    read_sealed,
    read_sealed_arrays,
    write_arrays,
    write_sealed,
    write_sealed_arrays,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=100)
@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4))
def test_json_comes_back(values: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.json")
        write_sealed(path, values)
        assert read_sealed(path) == values


def test_every_flipped_bit_of_json_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, {"a": 1e22, "text": "é b", "list": [1, 2.5, None], "seal": "a name like ours"})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        path.write_bytes(flipped(whole, bit))
        with pytest.raises(UserError):
            read_sealed(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError):
            read_sealed(path)


def test_every_flipped_bit_of_arrays_is_seen_or_changes_nothing(tmp_path: Path) -> None:
    """Only the blanks behind the header may be others: nothing is read of them."""
    path = tmp_path / "a.safetensors"
    wanted = {"ids": np.arange(7, dtype=np.uint8), "x": np.array([[1.5, -2.0]], np.float32)}
    write_sealed_arrays(path, wanted, {"key": "k"})
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        path.write_bytes(flipped(whole, bit))
        try:
            arrays, metadata = read_sealed_arrays(path)
        except UserError:
            continue
        assert metadata == {"key": "k"}
        assert {name: (array.dtype, array.tolist()) for name, array in arrays.items()} == {
            name: (array.dtype, array.tolist()) for name, array in wanted.items()
        }


def test_arrays_without_a_seal_are_read_only_where_none_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_arrays(path, {"x": np.zeros(2)}, {})
    assert set(read_sealed_arrays(path, needed=False)[0]) == {"x"}
    with pytest.raises(UserError, match="has no seal"):
        read_sealed_arrays(path)


def test_a_sealed_file_is_a_plain_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_sealed_arrays(path, {"x": np.arange(3)}, {"key": "k"})
    arrays, metadata = read_arrays(path)
    assert arrays["x"].tolist() == [0, 1, 2]
    assert metadata["key"] == "k"


def flipped(content: bytes, bit: int) -> bytes:
    made = bytearray(content)
    made[bit // 8] ^= 1 << bit % 8
    return bytes(made)
