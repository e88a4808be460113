"""Files are whole or untouched, also on a full disk; safetensors files are read exactly or refused by name."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays, sha256_file, write_arrays, write_atomically, write_json, write_text
from bertkit.files.processes import this_process
from left_over import ended_process, left_by


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    write_text(path, "new")
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["c.txt"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_who_may_read_a_file_follows_the_umask(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "a.json", [1])
        write_arrays(tmp_path / "a.safetensors", {"x": np.zeros(2)}, {})
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()] == [oct(0o666 & ~mask)] * 2


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), UserError("a cause", "a cure"), RuntimeError("a bug")]
)
@pytest.mark.parametrize("existed", [True, False])
def test_a_failed_write_leaves_what_was_there(error: Exception, existed: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if existed:
        path.write_text("old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(UserError if isinstance(error, OSError | UserError) else RuntimeError) as caught:
        write_atomically(path, write)
    if isinstance(error, OSError):
        assert str(path) in str(caught.value)
        assert "Input/output error" in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == (["file"] if existed else [])
    assert not existed or path.read_text() == "old"


def test_an_interrupt_leaves_nothing_beside_the_file(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", write)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_text(tmp_path / "file" / "below", "x")


PROGRAM = """
import sys, resource
from pathlib import Path
import numpy as np
from bertkit.files import disk
from bertkit.errors import UserError
import safetensors.numpy  # loaded before the limit holds
path, kind, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if kind == "text":
        disk.write_text(path, "x" * 4_000_000)
    else:
        disk.write_arrays(path, {"a": np.ones(1_000_000, np.float32)}, {"format": "pt"})
except UserError as error:
    print(error)
    sys.exit(7)
"""


def assert_full_disk_is_survived(folder: Path, kind: str, limit: int) -> None:
    path = folder / "file"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, kind, str(limit)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 7, (done.returncode, done.stderr)
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{path}: cannot be written: ")
    assert "free some space" in done.stdout
    assert path.read_text() == "old"
    assert [entry.name for entry in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("kind", ["text", "arrays"])
def test_a_file_that_grows_too_large(kind: str, tmp_path: Path) -> None:
    assert_full_disk_is_survived(tmp_path, kind, 100_000)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
        )
    except OSError as error:
        pytest.skip(f"no mount: {error}")
    if mounted.returncode:
        pytest.skip(f"this user may not mount a file system: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kind", ["text", "arrays"])
def test_a_full_disk(kind: str, small_disk: Path) -> None:
    assert_full_disk_is_survived(small_disk, kind, 0)


def widened(bits: int) -> float:
    """The value of a bfloat16's bits, by its definition: sign, 8 bits of exponent, 7 of mantissa."""
    sign, exponent, mantissa = -1.0 if bits >> 15 else 1.0, bits >> 7 & 0xFF, bits & 0x7F
    if exponent == 0xFF:
        return sign * float("inf") if mantissa == 0 else float("nan")
    if exponent == 0:
        return sign * mantissa * 2.0**-133
    return float(sign * (128 + mantissa) * 2.0 ** (exponent - 134))


@settings(deadline=None)
@given(st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=40))
@example([0, 0x8000, 1, 0x7F80, 0xFF80, 0x7FC0, 0x3F80, 0x7F7F, 0x0080])
def test_bfloat16_is_widened_exactly(bits: list[int]) -> None:
    entry = {"dtype": "BF16", "shape": [len(bits)], "data_offsets": [0, 2 * len(bits)]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        path.write_bytes(safetensors({"x": entry}, struct.pack(f"<{len(bits)}H", *bits)))
        found = read_arrays(path)[0]["x"]
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([widened(b) for b in bits], np.float32), equal_nan=True)
    assert [bool(sign) for sign in np.signbit(found)] == [bool(b >> 15) for b in bits]


def test_arrays_and_metadata_come_back(tmp_path: Path) -> None:
    wanted = {"a.b": np.arange(6, dtype=np.int32).reshape(2, 3), "none": np.zeros((0, 4), np.float64)}
    write_arrays(tmp_path / "a", wanted, {"format": "pt", "ü": "ä"})
    found, metadata = read_arrays(tmp_path / "a")
    assert metadata == {"format": "pt", "ü": "ä"}
    assert {name: array.tolist() for name, array in found.items()} == {n: a.tolist() for n, a in wanted.items()}
    assert found["none"].shape == (0, 4)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_shape_is_kept(shape: tuple[int, ...], tmp_path: Path) -> None:
    write_arrays(tmp_path / "a", {"x": np.full(shape, 3)}, {})
    assert read_arrays(tmp_path / "a")[0]["x"].shape == shape


GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        b"garbage, and enough of it",
        safetensors({"x": GOOD}, b"\0" * 7),  # cut off
        safetensors({"x": GOOD}, b"\0" * 9),  # too long
        safetensors({"x": GOOD}, b"\0" * 8, length=2**63 + 1),
        safetensors({"x": GOOD}, b"\0" * 8, length=2**40),
        safetensors({"x": GOOD}, b"\0" * 8, length=0),
        safetensors({"x": GOOD | {"shape": [2**62, 4]}}, b"\0" * 8),
        safetensors({"x": GOOD | {"shape": [-2]}}, b"\0" * 8),
        safetensors([1, 2]),
    ],
    ids=range(11),
)
def test_a_file_that_is_none_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_arrays(path)
    assert str(path) in caught.value.cause
    assert f"({len(content)} bytes)" in caught.value.cause


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a"
        for whole in (content, struct.pack("<Q", len(content)) + content):
            path.write_bytes(whole)
            with contextlib.suppress(UserError):
                read_arrays(path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "no such"])
def test_a_dtype_that_is_not_read_is_named_with_its_tensor(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors({"x": GOOD | {"dtype": dtype, "shape": [8]}}, b"\0" * 8))
    with pytest.raises(
        UserError, match=f"safetensors: x is of dtype {dtype}, which is not read here; give it in float32"
    ):
        read_arrays(path)


def test_a_tensor_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(GOOD)
    header = f'{{"x": {entry}, "x": {entry}}}'.encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 8)
    with pytest.raises(UserError, match="x is there twice"):
        read_arrays(path)


def test_complex_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(
        safetensors({"x": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, struct.pack("<2f", 1, 2))
    )
    assert read_arrays(path)[0]["x"].tolist() == [1 + 2j]


def test_a_sparse_file_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    size = 1 << 40
    header = json.dumps({"x": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)
    with pytest.raises(UserError, match="is sparse: most of its 1,099,511,"):
        read_arrays(path)


@pytest.mark.parametrize("name", ["absent", "."])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot be read|is a folder"):
        read_arrays(tmp_path / name)


def test_the_checksum_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"b": "é\n", "a": ""}])
def test_arrays_are_laid_out_as_safetensors_does(metadata: dict[str, str], tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    stream = np.random.default_rng(5)
    dtypes = ("<u8", "<i8", "<f8", "<f4", "<u4", "<i4", "<f2", "<u2", "<i2", "i1", "u1", "?")
    arrays = {f'{dtype} "é\x01': (stream.random((3, 2)) * 90).astype(dtype) for dtype in dtypes}
    arrays |= {"none": np.zeros((0, 3)), "one": np.array(2.5, np.float32), "b": np.ones(3), "a": np.ones(5)}
    digest = write_arrays(tmp_path / "a", arrays, metadata)
    raw = (tmp_path / "a").read_bytes()
    assert digest == sha256_file(tmp_path / "a")
    if len(metadata) == 1:  # safetensors writes several in no fixed order
        assert raw == save(arrays, metadata)
    back = load(raw)
    assert {name: (array.dtype, array.tolist()) for name, array in back.items()} == {
        name: (array.dtype, array.tolist()) for name, array in arrays.items()
    }


def test_arrays_in_another_order_or_byte_order_are_laid_out_the_same(tmp_path: Path) -> None:
    plain = np.arange(6, dtype="<f4").reshape(2, 3)
    write_arrays(tmp_path / "plain", {"a": plain, "t": plain.T.copy()}, {})
    write_arrays(tmp_path / "odd", {"a": plain.astype(">f4"), "t": plain.T}, {})
    assert (tmp_path / "odd").read_bytes() == (tmp_path / "plain").read_bytes()


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    gone, elsewhere = ended_process(), dataclasses.replace(ended_process(), host="elsewhere")
    swept = [left_by(gone, tmp_path / "a.json"), left_by(gone, tmp_path / ("x" * 250))]
    old = left_by(elsewhere, tmp_path / "old")
    os.utime(old, (0, 0))
    folder = left_by(gone, tmp_path / "convert")
    folder.unlink()
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"half")
    kept = [
        left_by(this_process(), tmp_path / "a.json"),  # written at this moment, in another thread say
        left_by(elsewhere, tmp_path / "a.json"),
        tmp_path / ".notes.part",
        tmp_path / "archive.zip.part",  # of a download, which goes on with it
        tmp_path / ".a.json.0123456789ab-1-1.01234567.part.bak",
    ]
    for path in kept[2:]:
        path.write_bytes(b"the user's own")
    write_text(tmp_path / "b.json", "{}")
    assert not any(path.exists() for path in (*swept, old, folder))
    assert all(path.exists() for path in kept)


def test_a_killed_writer_leaves_one_file_and_the_next_write_removes_it(tmp_path: Path) -> None:
    """Also of what safetensors would write: its own temporary file stood beside ours."""
    program = (
        "import os, signal, sys; from pathlib import Path; import numpy as np; from bertkit.files import disk;"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL);"
        "disk.write_arrays(Path(sys.argv[1]), {'a': np.ones(100_000)}, {})"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "model"], check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.iterdir())) == 1
    write_text(tmp_path / "other", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["other"]
