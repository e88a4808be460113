"""Checkpoints come back bit for bit, and a damaged one is passed over for the one before it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bertkit.errors import UserError
from bertkit.files import disk
from bertkit.files.disk import read_sealed, write_sealed
from bertkit.model import checkpoint
from bertkit.model.checkpoint import Checkpoints, Progress
from left_over import ended_process, left_by

DTYPES = ("<f4", "<f8", "<f2", "<i8", "<i4", "<i2", "i1", "<u4", "u1", "?")


def arrays(step: int) -> dict[str, np.ndarray]:
    return {"model.w": np.full((3, 2), step, np.float32), "optimizer.step": np.array(step)}


def progress(step: int, best: int = 0) -> Progress:
    score = 0.5 if best else float("-inf")
    return Progress(
        step, {"seed": 1}, best, score, tuple(float(n) for n in range(step)), (evaluation(step, f1=0.5),), 1.5
    )


def evaluation(step: int, **metrics: float) -> dict[str, Any]:
    return {"step": step, "training_seconds": 0.5, "wall_seconds": 1.5, "metrics": metrics}


def test_the_number_of_processes_is_kept_and_need_not_be_there(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(arrays(1), replace(progress(1), processes=4))
    assert checkpoints.load(1)[1].processes == 4
    path = manifest(checkpoints, 1)
    values = read_sealed(path)
    write_sealed(path, {name: value for name, value in values.items() if name not in ("processes", "seal")})
    assert checkpoints.load(1)[1].processes == 0  # an earlier bertkit's


def saved(folder: Path, *steps: int, keep: int = 9) -> Checkpoints:
    checkpoints = Checkpoints(folder / "checkpoints", keep)
    for step in steps:
        checkpoints.save(arrays(step), progress(step))
    return checkpoints


def tensors(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"step-{step:08d}.safetensors"


def manifest(checkpoints: Checkpoints, step: int) -> Path:
    return checkpoints.folder / f"step-{step:08d}.json"


def assert_falls_back(checkpoints: Checkpoints, to: int, caplog: pytest.LogCaptureFixture, *words: str) -> None:
    with caplog.at_level(logging.WARNING):
        found = checkpoints.newest()
    assert found is not None
    assert found[1] == progress(to)
    assert np.array_equal(found[0]["model.w"], arrays(to)["model.w"])
    for word in ("is passed over", *words):
        assert word in caplog.text


ARRAYS = st.sampled_from(DTYPES).flatmap(lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.text("abc.0", min_size=1), ARRAYS, max_size=4))
def test_arrays_come_back_bit_for_bit(wanted: dict[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        checkpoints.save(wanted, progress(3))
        found, _ = checkpoints.load(3)
    assert set(found) == set(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape, name
        assert found[name].tobytes() == array.tobytes()


def test_an_array_in_another_order_comes_back(tmp_path: Path) -> None:
    wanted = np.arange(6, dtype=np.float32).reshape(2, 3).T
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({"a": wanted, "b": wanted[::2]}, progress(1))
    found, _ = checkpoints.load(1)
    assert np.array_equal(found["a"], wanted)
    assert np.array_equal(found["b"], wanted[::2])


@settings(deadline=None, max_examples=50)
@given(
    st.integers(1, 10**9),
    st.integers(0, 5),
    st.floats(allow_nan=False, allow_infinity=False),
    st.lists(st.floats(allow_nan=False), max_size=5),
    st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)
def test_progress_comes_back(
    step: int, best: int, score: float, losses: list[float], shaped: dict[str, object]
) -> None:
    wanted = Progress(
        step, shaped, best, score if best else float("-inf"), tuple(losses), (evaluation(1, mcc=0.1),), 0.1 + 0.2
    )
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        checkpoints.save({}, wanted)
        newest = checkpoints.newest()
    assert newest is not None
    assert newest[1] == wanted


def test_losses_that_are_no_numbers_come_back(tmp_path: Path) -> None:
    losses = (1.0, float("nan"), float("inf"), float("-inf"))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save({}, Progress(4, {}, losses=losses))
    found = checkpoints.load(4)[1].losses
    assert [str(loss) for loss in found] == [str(loss) for loss in losses]
    assert math.isnan(found[1])


def test_without_checkpoints_there_is_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "absent").newest() is None
    assert Checkpoints(tmp_path).steps() == []


def test_the_newest_few_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in range(1, 7):
        checkpoints.save(arrays(step), progress(step, best=2 if step >= 2 else 1))
    assert checkpoints.steps() == [2, 5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"step-{step:08d}.{ending}" for step in (2, 5, 6) for ending in ("json", "safetensors")
    )
    assert checkpoints.load(2)[0]["model.w"][0, 0] == 2


def test_a_best_that_is_overtaken_goes(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=1)
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3)):
        checkpoints.save(arrays(step), progress(step, best))
    assert checkpoints.steps() == [3, 4]


@pytest.mark.parametrize("length", [0, 4, 8, 40, -1])
def test_cut_off_tensors_are_passed_over(length: int, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = tensors(checkpoints, 2)
    path.write_bytes(path.read_bytes()[:length])
    assert_falls_back(checkpoints, 1, caplog, "step 2", "checksum")


def test_any_flipped_bit_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    path = tensors(checkpoints, 2)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(UserError, match="checksum"):
            checkpoints.load(2)
    assert_falls_back(checkpoints, 1, caplog, "checksum")
    path.write_bytes(whole)
    assert checkpoints.load(2)[1] == progress(2)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"5", b'"step"', b"{}", b"\xff\xfe", b"\x00" * 64, b'{"format": 1}', b'{"format": 99}',
     b'{"format": 1, "step": "x", "shaped_by": {}}', b'{"format": 1, "step": 1e999, "shaped_by": {}}'],
)  # fmt: skip
def test_a_foreign_manifest_is_passed_over(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    manifest(checkpoints, 2).write_bytes(content)
    assert_falls_back(checkpoints, 1, caplog)


def test_a_manifest_cut_off_anywhere_is_passed_over(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    whole = manifest(checkpoints, 2).read_bytes().rstrip()
    for length in range(len(whole)):
        manifest(checkpoints, 2).write_bytes(whole[:length])
        with pytest.raises(UserError):
            checkpoints.load(2)


def test_another_format_is_named(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    values = read_sealed(manifest(checkpoints, 1))
    write_sealed(manifest(checkpoints, 1), values | {"format": 3})
    with pytest.raises(UserError, match="format 3, not 2"):
        checkpoints.load(1)


def test_a_manifest_of_an_earlier_bertkit_is_refused_by_name(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    values = read_sealed(manifest(checkpoints, 1))
    manifest(checkpoints, 1).write_text(json.dumps(values | {"format": 1}))
    with pytest.raises(UserError, match=r"has no seal.*earlier bertkit.*--overwrite"):
        checkpoints.load(1)


def test_a_checkpoint_under_another_steps_name_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    for name in (tensors, manifest):
        shutil.copy(name(checkpoints, 1), name(checkpoints, 2))
    with pytest.raises(UserError):
        checkpoints.load(2)


def test_missing_tensors_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    tensors(checkpoints, 2).unlink()
    assert_falls_back(checkpoints, 1, caplog, "is missing")


def test_all_damaged_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2, 3)
    for step in (1, 2, 3):
        tensors(checkpoints, step).write_bytes(b"x")
    with pytest.raises(UserError, match="all 3 checkpoints are damaged") as caught:
        checkpoints.newest()
    assert "--overwrite" in caught.value.cure
    assert len(caplog.records) == 3


def test_what_a_crash_left_is_cleaned_away(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    tensors(checkpoints, 7).write_bytes(b"without a manifest")
    part = left_by(ended_process(), checkpoints.folder / "step-00000007.safetensors")
    part.write_bytes(b"half")
    foreign = checkpoints.folder / "notes.txt"
    foreign.write_text("the user's own")
    assert checkpoints.steps() == [1]
    assert checkpoints.newest() is not None
    checkpoints.save(arrays(2), progress(2))
    assert checkpoints.steps() == [1, 2]
    assert [part.exists(), tensors(checkpoints, 7).exists(), foreign.exists()] == [False, False, True]


@pytest.mark.parametrize("failing", ["write_arrays", "write_sealed"])
def test_an_interrupted_write_leaves_the_one_before(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = saved(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()}

    def full(path: Path, *_: object) -> None:
        def write(temporary: Path) -> None:
            temporary.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        disk.write_atomically(path, write)

    monkeypatch.setattr(f"bertkit.model.checkpoint.{failing}", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save(arrays(2), progress(2))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    monkeypatch.undo()
    newest = checkpoints.newest()
    assert newest is not None
    assert newest[1] == progress(1)


FLIPS = int(os.environ.get("BERTKIT_TEST_FLIPS", "200"))


def test_any_flipped_bit_of_tensors_and_manifest_is_noticed(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    files = [path(checkpoints, 2) for path in (tensors, manifest)]
    whole = [file.read_bytes() for file in files]
    bits = [(number, bit) for number, content in enumerate(whole) for bit in range(8 * len(content))]
    for number, bit in random.Random(11).choices(bits, k=FLIPS):  # noqa: S311 - places, not secrets
        content = bytearray(whole[number])
        content[bit // 8] ^= 1 << bit % 8
        files[number].write_bytes(content)
        with pytest.raises(UserError):
            checkpoints.load(2)
        files[number].write_bytes(whole[number])
    assert checkpoints.load(2)[1] == progress(2)


def test_every_bit_of_the_manifest_counts(tmp_path: Path) -> None:
    """Also one that JSON does not care for: a blank, the case of an exponent's letter."""
    checkpoints = saved(tmp_path, 1)
    whole = manifest(checkpoints, 1).read_bytes()
    for bit in range(8 * len(whole)):
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        manifest(checkpoints, 1).write_bytes(content)
        with pytest.raises(UserError):
            read_sealed(manifest(checkpoints, 1))


@pytest.mark.parametrize(
    "change",
    [{"train_seconds": 2**63}, {"evaluations": "\u0663"}, {"losses": [10**400]}, {"losses": None}, {"shaped_by": 3}],
)
def test_values_that_nobody_wrote_are_passed_over(
    change: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By the seal; and were the seal there, as of a faulty bertkit, by what they are."""
    checkpoints = saved(tmp_path, 1, 2)
    values = read_sealed(manifest(checkpoints, 2))
    manifest(checkpoints, 2).write_text(json.dumps(values | change))
    assert_falls_back(checkpoints, 1, caplog, "seal")
    if "train_seconds" not in change:
        caplog.clear()
        write_sealed(manifest(checkpoints, 2), values | change)
        assert_falls_back(checkpoints, 1, caplog)


def test_tensors_of_another_checkpoint_are_no_part_of_this_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    other = saved(tmp_path / "other", 2)
    other.save({"model.w": np.zeros(3)}, progress(2))
    shutil.copy(tensors(other, 2), tensors(checkpoints, 2))
    assert_falls_back(checkpoints, 1, caplog, "checksum")


def test_whatever_is_wrong_the_one_before_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    read = checkpoint.read_arrays

    def failing(path: Path) -> Any:
        if path == tensors(checkpoints, 2):
            raise RuntimeError("what nobody thought of")
        return read(path)

    monkeypatch.setattr(checkpoint, "read_arrays", failing)
    assert_falls_back(checkpoints, 1, caplog, "RuntimeError: what nobody thought of")


@pytest.mark.parametrize("made", ["folder", "pipe", "loop"])
def test_what_is_no_file_is_passed_over(made: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    for path in (tensors(checkpoints, 2), manifest(checkpoints, 2)):
        path.unlink()
        if made == "folder":
            path.mkdir()
        elif made == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to(path.name)
    assert_falls_back(checkpoints, 1, caplog)


def test_names_that_only_look_like_checkpoints_are_none(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 1)
    for name in ("step-²²²²²²²²", "step-7", "step-" + "9" * 400, "step--0000001", "xstep-00000009"):
        with contextlib.suppress(OSError):  # a name that is too long
            (checkpoints.folder / f"{name}.json").write_text("{}")
    assert checkpoints.steps() == [1]
