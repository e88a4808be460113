"""`bertkit.data.features`: slicing in any order, a digest that sees every array, and a cache that never costs a run."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.features import Features, cache_key, cached
from bertkit.files.processes import this_process
from left_over import ended_process, left_by
from ragged import features_of

FLIPS = int(os.environ.get("BERTKIT_TEST_FLIPS", "100"))
quick = settings(deadline=None, max_examples=60)


@st.composite
def orders(draw: st.DrawFn) -> tuple[list[int], np.ndarray]:
    """(lengths of some examples, any choice of them in any order, doubled ones and none at all included)."""
    lengths = draw(st.lists(st.integers(1, 30), min_size=1, max_size=20))
    chosen = draw(st.lists(st.integers(0, len(lengths) - 1), max_size=30))
    return lengths, np.array(chosen, np.int64)


@quick
@given(orders())
def test_a_batch_is_what_slicing_by_hand_gives(drawn: tuple[list[int], np.ndarray]) -> None:
    lengths, order = drawn
    features = features_of(lengths, labels=np.arange(len(lengths)), weights=np.linspace(0, 1, len(lengths)))
    batch = features.batch(order)
    ends = np.cumsum(lengths)
    parts = [slice(ends[i] - lengths[i], ends[i]) for i in order]
    assert batch["input_ids"].tolist() == [n for part in parts for n in features.input_ids[part]]
    assert batch["token_type_ids"].tolist() == [n for part in parts for n in features.token_type_ids[part]]
    assert np.diff(batch["cu_seqlens"]).tolist() == [lengths[i] for i in order]
    assert batch["cu_seqlens"][0] == 0
    assert np.array_equal(batch["example_ids"], order)
    assert np.array_equal(batch["labels"], order)
    assert np.array_equal(batch["weights"], features.labels["weights"][order])


def test_a_batch_has_the_seams_types_and_its_own_memory() -> None:
    features = features_of([3, 2])
    batch = features.batch(np.array([1, 0], np.int32))
    assert {name: array.dtype for name, array in batch.items()} == {
        "input_ids": np.int32, "token_type_ids": np.int32, "cu_seqlens": np.int32,
        "example_ids": np.int64, "labels": np.int64,
    }  # fmt: skip
    batch["input_ids"][:] = -1
    assert features.input_ids.min() >= 0


def test_lengths() -> None:
    features = features_of([3, 1, 4])
    assert len(features) == 3
    assert features.lengths.tolist() == [3, 1, 4]


def test_the_digest_sees_every_array() -> None:
    base = features_of([3, 2, 4])
    other_ids = base.input_ids.copy()
    other_ids[-1] += 1
    changed = [
        dataclasses.replace(base, input_ids=other_ids),
        dataclasses.replace(base, input_ids=base.input_ids.astype(np.int64)),
        dataclasses.replace(base, token_type_ids=1 - base.token_type_ids),
        dataclasses.replace(base, cu_seqlens=np.array([0, 2, 5, 9])),
        dataclasses.replace(base, labels={"labels": np.array([0, 2, 1])}),
        dataclasses.replace(base, labels={"starts": np.array([0, 1, 2])}),
        dataclasses.replace(base, labels={}),
        dataclasses.replace(base, labels={**base.labels, "more": np.empty(0, np.int64)}),
    ]
    digests = [features.digest() for features in changed]
    assert len({base.digest(), *digests}) == len(changed) + 1
    assert features_of([3, 2, 4]).digest() == base.digest()
    reordered = dataclasses.replace(base, labels={"b": base.input_ids, "a": base.input_ids})
    again = dataclasses.replace(base, labels={"a": base.input_ids, "b": base.input_ids})
    assert reordered.digest() == again.digest()


def test_the_digest_is_pinned() -> None:
    """The same data gives the same digest on every machine: runs are compared by it."""
    assert features_of([2, 1]).digest() == "06a660f2790da378564918cda1f02117d9536f3631c8b74883520231ab1a7792"


def test_every_part_shapes_the_key() -> None:
    parts: dict[str, str | int | bool] = {"task": "mrpc", "rows": 0, "lower_case": True, "seq_length": 128}
    keys = {cache_key(**parts)}
    changes: dict[str, str | int | bool] = {"task": "rte", "rows": 1, "lower_case": False, "seq_length": 64}
    keys |= {cache_key(**(parts | {name: value})) for name, value in changes.items()}
    keys |= {cache_key(**{n: v for n, v in parts.items() if n != name}) for name in parts}
    keys.add(cache_key(task="mrpc", rows="0", lower_case=True, seq_length=128))  # a text is no number
    assert len(keys) == 10
    assert cache_key(**dict(reversed(parts.items()))) == cache_key(**parts)


def test_the_format_shapes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = cache_key(task="mrpc")
    monkeypatch.setattr("bertkit.data.features.FORMAT", 1_000_000)
    assert cache_key(task="mrpc") != before


class Builder:
    """Builds features and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Features:
        self.calls += 1
        return features_of([3, 1, 2])


def test_the_second_call_does_not_build(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    made = cached(tmp_path / "new" / "folder", "mrpc-dev", "key", build)
    kept = cached(tmp_path / "new" / "folder", "mrpc-dev", "key", build)
    assert build.calls == 1
    assert kept.digest() == made.digest() == features_of([3, 1, 2]).digest()
    assert kept.batch(np.array([2]))["input_ids"].tolist() == [3000, 3001]
    assert not caplog.records
    cached(tmp_path / "new" / "folder", "mrpc-dev", "another", build)
    cached(tmp_path / "new" / "folder", "mrpc-train", "key", build)
    assert build.calls == 3


def test_without_a_folder_nothing_is_kept() -> None:
    build = Builder()
    cached(None, "mrpc", "key", build)
    cached(None, "mrpc", "key", build)
    assert build.calls == 2


@pytest.mark.parametrize("size", [0, 5, 60, -1])
def test_a_truncated_file_is_built_anew_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    build = Builder()
    wanted = cached(tmp_path, "mrpc", "key", build).digest()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:size])
    with caplog.at_level(logging.WARNING):
        assert cached(tmp_path, "mrpc", "key", build).digest() == wanted
    assert build.calls == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(path) in caplog.text
    assert path.read_bytes() == whole  # mended
    assert cached(tmp_path, "mrpc", "key", build).digest() == wanted
    assert build.calls == 2


def test_no_flipped_bit_of_a_kept_file_reaches_a_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    wanted = cached(tmp_path, "mrpc", "key", build).digest()
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    bits = random.Random(3).choices(range(8 * len(whole)), k=FLIPS)  # noqa: S311 - places, not secrets
    for bit in [*bits, 8 * len(whole) - 1, 8 * len(whole) - 8 * 12]:
        content = bytearray(whole)
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        assert cached(tmp_path, "mrpc", "key", build).digest() == wanted
    assert build.calls > FLIPS // 2  # what is left are blanks behind the header
    assert "damaged and rebuilt" in caplog.text


def test_a_file_of_another_key_is_built_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    build = Builder()
    cached(tmp_path, "mrpc", "one", build)
    (path,) = tmp_path.iterdir()
    path.rename(path.with_name(path.name.replace("one", "two")))
    cached(tmp_path, "mrpc", "two", build)
    assert build.calls == 2
    assert "is of another key" in caplog.text


def test_what_killed_writers_left_in_the_cache_is_swept(tmp_path: Path) -> None:
    build = Builder()
    cached(tmp_path, "mrpc", "key", build)
    left, alive = left_by(ended_process(), tmp_path / "squad"), left_by(this_process(), tmp_path / "squad")
    cached(tmp_path, "mrpc", "key", build)
    assert [left.exists(), alive.exists()] == [False, True]


def test_a_folder_that_cannot_be_made_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert len(cached(tmp_path / "file" / "cache", "mrpc", "key", Builder())) == 3
    assert "not kept" in caplog.text


@pytest.fixture
def folder_of_another(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, with the rights of a user who is not root: root may read and write everything."""
    if os.geteuid() != 0:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to all but root
        os.chown(folder, 65534, -1)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("mode", [0o555, 0o000], ids=["read-only", "closed"])
def test_a_folder_without_permission_only_warns(
    folder_of_another: Path, caplog: pytest.LogCaptureFixture, mode: int
) -> None:
    folder = folder_of_another / "cache"
    folder.mkdir()
    folder.chmod(mode)
    try:
        with caplog.at_level(logging.WARNING):
            assert len(cached(folder, "mrpc", "key", Builder())) == 3
    finally:
        folder.chmod(0o755)
    assert "not kept" in caplog.text
