"""Checkpoints come back bit for bit, and a damaged one is passed over for the one before it."""

from __future__ import annotations

import json
import logging
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bertkit import disk
from bertkit.checkpoint import Checkpoints, Progress
from bertkit.errors import UserError

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
    values = json.loads(manifest(checkpoints, 1).read_text())
    manifest(checkpoints, 1).write_text(json.dumps(values | {"format": 2}))
    with pytest.raises(UserError, match="format 2, not 1"):
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
    part = checkpoints.folder / ".step-00000007.safetensors.abc.part"
    part.write_bytes(b"half")
    foreign = checkpoints.folder / "notes.txt"
    foreign.write_text("the user's own")
    assert checkpoints.steps() == [1]
    assert checkpoints.newest() is not None
    checkpoints.save(arrays(2), progress(2))
    assert checkpoints.steps() == [1, 2]
    assert [part.exists(), tensors(checkpoints, 7).exists(), foreign.exists()] == [False, False, True]


@pytest.mark.parametrize("failing", ["write_arrays", "write_json"])
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

    monkeypatch.setattr(f"bertkit.checkpoint.{failing}", full)
    with pytest.raises(UserError, match="No space left"):
        checkpoints.save(arrays(2), progress(2))
    assert {path.name: path.read_bytes() for path in checkpoints.folder.iterdir()} == before
    monkeypatch.undo()
    newest = checkpoints.newest()
    assert newest is not None
    assert newest[1] == progress(1)


def test_an_earlier_checkpoints_evaluations_have_no_times(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path, 3)
    manifest = tmp_path / "checkpoints" / "step-00000003.json"
    values = json.loads(manifest.read_text())
    values["evaluations"] = [{"step": 2, "f1": 0.25, "accuracy": 0.5}]
    del values["wall_seconds"]
    manifest.write_text(json.dumps(values))
    progress = checkpoints.load(3)[1]
    metrics = {"f1": 0.25, "accuracy": 0.5}
    assert progress.evaluations == (
        {"step": 2, "training_seconds": None, "wall_seconds": None, "metrics": metrics},
    )  # fmt: skip
    assert progress.wall_seconds == 0.0
