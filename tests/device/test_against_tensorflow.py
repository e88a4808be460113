"""TensorFlow as the oracle of the checkpoint files; skipped without it (1.3 GB, an extra)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, write_arrays, write_json
from bertkit.model.config import ARCHITECTURES, Head, to_mapping
from bertkit.model.formats.names import to_tf1, transposed
from bertkit.model.formats.tf1 import FIRST, SECOND, STEP, read_tf1, write_tf1
from bertkit.model.formats.tf1_bundle import read_bundle, read_index, write_bundle
from bertkit.model.parameters import initial
from conftest import Run

tf = pytest.importorskip("tensorflow")
DTYPES = (np.float32, np.float64, np.float16, np.int64, np.int32, np.uint8, np.bool_)


@pytest.fixture(autouse=True)
def _as_many_threads_as_engines_have() -> None:
    """TensorFlow takes the number at its first operation, once a process, and other tests here make engines."""
    from bertkit_tensorflow.device import set_threads

    set_threads(1)


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


# ---- a BERT's checkpoint, with TensorFlow's own readers and writers ----

TINY = ARCHITECTURES["tiny"]
HEADS = (Head("classification", 3), Head("span", 2), Head("pretraining", 2))


def theirs(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Under the names, and the way round, of BERT's checkpoints of 2018: kernels are (inputs, outputs)."""
    found = {str(to_tf1(name)): array for name, array in weights.items()}
    return {name: array.T if transposed(name) else array for name, array in found.items()}


@pytest.mark.parametrize("head", HEADS, ids=[head.kind for head in HEADS])
def test_tensorflow_reads_a_model_that_we_wrote(head: Head, tmp_path: Path) -> None:
    weights = initial(TINY, head, 1)
    moments = {f"{kind}{name}": array * 2 for kind in (FIRST, SECOND) for name, array in weights.items()}
    write_tf1(tmp_path / "model.ckpt-7", weights, moments | {STEP: np.array(7.0)})
    shapes = dict(tf.train.list_variables(str(tmp_path / "model.ckpt-7")))
    reader = tf.train.load_checkpoint(str(tmp_path / "model.ckpt-7"))
    wanted = theirs(weights)
    slots = {f"{name}/{slot}": array * 2 for name, array in wanted.items() for slot in ("adam_m", "adam_v")}
    assert shapes.keys() == {*wanted, *slots, "global_step"}
    assert reader.get_tensor("global_step") == 7
    for name, array in (wanted | slots).items():
        assert tuple(shapes[name]) == array.shape, name
        np.testing.assert_array_equal(reader.get_tensor(name), array, err_msg=name)
    assert shapes["bert/encoder/layer_0/intermediate/dense/kernel"] == [TINY.hidden_size, TINY.intermediate_size]


@pytest.mark.parametrize("head", HEADS, ids=[head.kind for head in HEADS])
def test_we_read_a_model_that_tensorflow_saved(head: Head, tmp_path: Path) -> None:
    weights = initial(TINY, head, 2)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        for name, array in theirs(weights).items():
            for suffix, factor in (("", 1), ("/adam_m", 3), ("/adam_v", 5)):
                tf.compat.v1.get_variable(name + suffix, initializer=tf.constant(array * np.float32(factor)))
        tf.compat.v1.get_variable("global_step", initializer=tf.constant(9, tf.int64))
        session.run(tf.compat.v1.global_variables_initializer())
        prefix = tf.compat.v1.train.Saver().save(session, str(tmp_path / "model.ckpt"), global_step=9)
    found = read_tf1(Path(prefix), moments=True)
    assert (found.weights.keys(), found.unknown, found.left_out) == (weights.keys(), {}, ())
    assert found.moments[STEP] == 9
    for name, array in weights.items():
        np.testing.assert_array_equal(found.weights[name], array, err_msg=name)
        np.testing.assert_array_equal(found.moments[FIRST + name], array * np.float32(3), err_msg=name)
        np.testing.assert_array_equal(found.moments[SECOND + name], array * np.float32(5), err_msg=name)


def test_the_command_goes_there_and_back(bertkit: Run, tmp_path: Path) -> None:
    head, vocabulary = HEADS[0], ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary += [f"w{n}" for n in range(TINY.vocab_size - len(vocabulary))]
    weights = initial(TINY, head, 3)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    write_json(tmp_path / "run" / "config.json", to_mapping(TINY, head, ()))
    write_arrays(tmp_path / "run" / "model.safetensors", weights, {})
    done = bertkit("convert", "run", "out/bert_model.ckpt")
    assert done.returncode == 0, done.stderr
    reader = tf.train.load_checkpoint(str(tmp_path / "out" / "bert_model.ckpt"))
    for name, array in theirs(weights).items():
        np.testing.assert_array_equal(reader.get_tensor(name), array, err_msg=name)
    done = bertkit("convert", "out/bert_model.ckpt", "back")
    assert done.returncode == 0, done.stderr
    back, _ = read_arrays(tmp_path / "back" / "model.safetensors")
    assert back.keys() == weights.keys()
    assert all(np.array_equal(back[name], array) for name, array in weights.items())
