"""TensorFlow as the oracle of the checkpoint files; skipped without it (1.3 GB, no dependency)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.model.formats.tf1_bundle import read_bundle, read_index, write_bundle

tf = pytest.importorskip("tensorflow")
DTYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)


def variables(seed: int) -> dict[str, np.ndarray]:
    """Variables of random names, shapes and dtypes."""
    rng = np.random.default_rng(seed)
    made = {}
    for _ in range(int(rng.integers(1, 60))):
        name = "/".join(f"v{n}" for n in rng.integers(0, 30, int(rng.integers(1, 4))))
        shape = tuple(int(n) for n in rng.integers(0, 5, int(rng.integers(0, 4))))
        made[name] = (rng.standard_normal(shape) * 10).astype(DTYPES[int(rng.integers(len(DTYPES)))])
    return made


def check(arrays: dict[str, np.ndarray], folder: Path) -> None:
    """TensorFlow reads what we write, we read what it writes, and the files are the same."""
    write_bundle(folder / "ours", arrays)
    reader = tf.train.load_checkpoint(str(folder / "ours"))
    assert reader.get_variable_to_shape_map().keys() == arrays.keys()
    names = sorted(arrays)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "theirs"),
        tensor_names=names,
        shape_and_slices=[""] * len(names),
        tensors=[tf.constant(arrays[name]) for name in names],
    )
    back = read_bundle(read_index(folder / "theirs"))
    for name, array in arrays.items():
        read = reader.get_tensor(name)
        assert (read.dtype, read.tobytes()) == (array.dtype, array.tobytes()), name
        assert (back[name].dtype, back[name].tobytes()) == (array.dtype, array.tobytes()), name
    for ending in (".index", ".data-00000-of-00001"):
        assert (folder / f"ours{ending}").read_bytes() == (folder / f"theirs{ending}").read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_both_read_and_write_the_same(seed: int, tmp_path: Path) -> None:
    check(variables(seed), tmp_path)


def test_an_index_of_several_blocks(tmp_path: Path) -> None:
    check({f"layer_{n}/{'x' * (n % 90)}": np.array(n, np.float32) for n in range(9000)}, tmp_path)
    assert (tmp_path / "ours.index").stat().st_size > 2 * 262144


def test_tensorflow_2s_own_checkpoints_are_refused(tmp_path: Path) -> None:
    tf.train.Checkpoint(v=tf.Variable(tf.ones((2, 2)))).write(str(tmp_path / "two"))
    with pytest.raises(UserError, match="object-based checkpoint of TensorFlow 2"):
        read_index(tmp_path / "two")
