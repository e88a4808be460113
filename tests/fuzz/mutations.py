"""Damage to files, drawn from a seed: bytes of any file, and values within formats whose frame stays whole.

Each mutation takes a generator and a file's content and gives other content. The same generator gives the same.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

Mutation = Callable[[Random, bytes], bytes]

NUMBERS = (
    "0", "-1", "1", "2", "7", "255", "256", "65536", "2147483647", "2147483648", "4294967296", "1099511627776",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "9" * 400,
    "9" * 5000, "1e400", "1e-400", "0.5", "-0.0", "NaN", "Infinity", "-Infinity", "inf", "nan", "1_000", "0x10",
    "²", "١",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "a\0b", "\x1b[31mred", "\u202eback", "\u2028", "é", "😀", "\ufeff", "\ud800", "[PAD]", "[MASK]",
    "../up", "/dev/zero", "/dev/full", ".", "..", "/", "x" * 300, "x" * 70_000, "a\nb", "a\rb", "a\tb", "null", "true",
    "{}", "[]", "%s%n", "${HOME}", "~", "-1", "C:\\a", "\\udce9", "__class__", "a" * 17 + "=", "k/n", "0/0",
    "1-", "é" * 200,
)  # fmt: skip
BYTES = (
    b"\0",
    b"\xff",
    b"\xfe\xff",
    b"\x80",
    b"\x7f\xff\xff\xff",
    b"\xff" * 8,
    b"\0" * 16,
    b"\n",
    b"\r\n",
    b"\t",
    b'"',
    b"{",
)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3, 7, 2**31, 2**40, 2**63, 2**64, -(2**63) - 1, 10**400, 0.5, -0.0, 1.5, 1e300,
    1e-320, float("nan"), float("inf"), float("-inf"), "", "0", "1", "text", [], {}, [[]], [None], [0, "a"], {"": 0},
    {"a": {"b": 1}},
)  # fmt: skip
DEEP = 100_000


# ---- bytes ----


def any_bytes(draw: Random, data: bytes) -> bytes:
    """One to three of the changes that disks, networks and editors make."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        data = draw.choice(_ON_BYTES)(draw, data)
    return data


def _span(draw: Random, data: bytes, most: int = 64) -> tuple[int, int]:
    start = draw.randrange(len(data) + 1)
    return start, min(len(data), start + draw.choice((1, 2, 4, 8, 16, draw.randrange(1, most + 1))))


def _flip(draw: Random, data: bytes) -> bytes:
    if not data:
        return b"\0"
    made = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8))):
        made[draw.randrange(len(made))] ^= 1 << draw.randrange(8)
    return bytes(made)


def _byte(draw: Random, data: bytes) -> bytes:
    place = draw.randrange(len(data) + 1)
    return data[:place] + draw.choice(BYTES) + data[place + 1 :]


def _cut(draw: Random, data: bytes) -> bytes:
    return data[: draw.choice((0, 1, 7, 8, len(data) // 2, max(0, len(data) - 1), draw.randrange(len(data) + 1)))]


def _remove(draw: Random, data: bytes) -> bytes:
    start, stop = _span(draw, data)
    return data[:start] + data[stop:]


def _insert(draw: Random, data: bytes) -> bytes:
    place = draw.randrange(len(data) + 1)
    new = draw.choice((draw.choice(BYTES), draw.randbytes(draw.randrange(1, 32)), draw.choice(NUMBERS).encode()))
    return data[:place] + new + data[place:]


def _double(draw: Random, data: bytes) -> bytes:
    start, stop = _span(draw, data, 512)
    return data[:stop] + data[start:stop] * draw.choice((1, 1, 2, 50)) + data[stop:]


def _zero(draw: Random, data: bytes) -> bytes:
    start, stop = _span(draw, data, 4096)
    return data[:start] + bytes(stop - start) + data[stop:]


def _move(draw: Random, data: bytes) -> bytes:
    start, stop = _span(draw, data, 256)
    part, rest = data[start:stop], data[:start] + data[stop:]
    place = draw.randrange(len(rest) + 1)
    return rest[:place] + part + rest[place:]


def _digits(draw: Random, data: bytes) -> bytes:
    found = list(re.finditer(rb"-?\d+(\.\d+)?", data))
    if not found:
        return _flip(draw, data)
    one = draw.choice(found)
    return data[: one.start()] + draw.choice(NUMBERS).encode() + data[one.end() :]


_ON_BYTES: Sequence[Mutation] = (_flip, _flip, _byte, _cut, _remove, _insert, _double, _zero, _move, _digits)


# ---- text: lines, cells, words ----


def text(draw: Random, data: bytes) -> bytes:
    """Lines, cells and words that are lost, doubled, exchanged or others."""
    lines = data.split(b"\n")
    at = draw.randrange(len(lines))
    how = draw.randrange(9)
    if how == 0:
        del lines[at]
    elif how == 1:
        lines.insert(at, lines[draw.randrange(len(lines))])
    elif how == 2:
        other = draw.randrange(len(lines))
        lines[at], lines[other] = lines[other], lines[at]
    elif how == 3:
        lines.insert(at, _odd_text(draw))
    elif how == 4:
        lines[at] = lines[at] + b"\r"
    elif how == 5:
        lines = lines[: at + 1]
    else:
        cells = re.split(rb"([\t ,;=:@()\-]+)", lines[at])
        cell = draw.randrange(len(cells))
        cells[cell] = draw.choice((b"", _odd_text(draw), draw.choice(NUMBERS).encode(), cells[cell] * 2))
        lines[at] = b"".join(cells)
    return b"\n".join(lines)


def _odd_text(draw: Random) -> bytes:
    return draw.choice(TEXTS).encode("utf-8", "surrogatepass")


def toml(draw: Random, data: bytes) -> bytes:
    """A value, a key or a table's name of TOML becomes another."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = draw.randrange(len(lines))
    key, equals, _ = lines[at].partition("=")
    odd = (
        *NUMBERS, *(_toml_text(value) for value in TEXTS), "[]", "{}", "[1, 'a']", "{a = 1}", "[" * 6000, "true",
        "1979-13-45", "2020-01-01", "07:32:00", "1.2.3", "'''", '"""', "'a", "nope",
    )  # fmt: skip
    how = draw.randrange(6)
    if equals and how < 4:
        lines[at] = f"{key}= {draw.choice(odd)}"
    elif how == 4:
        lines.insert(at, draw.choice(lines))
    else:
        names = (
            "[",
            "[]",
            "[[x]]",
            "[device]",
            "[a.b.c]",
            "[" + "a." * 5000 + "a]",
            "x = 1",
            "a" * 70_000 + " = 1",
            "=1",
        )
        lines.insert(at, draw.choice(names))
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _toml_text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


# ---- JSON ----


def parsed(draw: Random, data: bytes) -> bytes:
    """JSON whose frame is whole and one of whose values, keys or levels is another."""
    return _dumped(draw, _changed(draw, json.loads(data)))


def json_lines(draw: Random, data: bytes) -> bytes:
    """As `parsed`, of one line."""
    lines = data.split(b"\n")
    full = [at for at, line in enumerate(lines) if line.strip()]
    at = draw.choice(full)
    lines[at] = parsed(draw, lines[at]).replace(b"\n", b" ")
    return b"\n".join(lines)


def _changed(draw: Random, value: Any) -> Any:
    for _ in range(draw.choice((1, 1, 1, 2))):
        value = _change(draw, value)
    return value


def _change(draw: Random, value: Any) -> Any:
    places = _places(value)
    if not places or draw.random() < 0.02:
        return copy.deepcopy(draw.choice(VALUES))
    parent, key = draw.choice(places)
    how = draw.randrange(8)
    if how == 0:
        del parent[key]
    elif how == 1:
        parent[key] = [parent[key]]
    elif how == 2:
        parent[key] = draw.choice(TEXTS)
    elif how == 3 and isinstance(parent, dict):
        parent[draw.choice(TEXTS)] = parent.pop(key)
    elif how == 4 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        number = parent[key]
        near = float(number) if abs(number) < 1e300 else 0.5  # Python's whole numbers know no end
        parent[key] = draw.choice((number + 1, -number, number * 1000, near, str(number)))
    elif how == 5:
        parent[key] = copy.deepcopy(draw.choice(places)[0])
    else:
        parent[key] = copy.deepcopy(draw.choice(VALUES))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value within."""
    found: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        inside = (
            list(part.items()) if isinstance(part, dict) else list(enumerate(part)) if isinstance(part, list) else []
        )
        found += [(part, key) for key, _ in inside]
        waiting += [held for _, held in inside]
    return found


def _dumped(draw: Random, value: Any) -> bytes:
    """The JSON, sometimes with what json itself would not write: nested deep, a number of any length, a key twice."""
    made = json.dumps(value)
    how = draw.randrange(20)
    scalars = list(re.finditer(r'(?<=: )(-?\d[\d.e+-]*|"[^"\\]*"|true|false|null)', made))
    if how < 5 and scalars:
        one = draw.choice(scalars)
        odd = (
            "[" * DEEP,
            '{"a":' * DEEP,
            "9" * 5000,
            "-" + "9" * 5000,
            "1" * 20,
            '"\\ud800"',
            "1e999",
            "01",
            "+1",
            "NaN",
            "",
        )
        return (made[: one.start()] + draw.choice(odd) + made[one.end() :]).encode()
    if how == 5 and made.startswith("{") and len(made) > 2:
        return (made[:-1] + ", " + made[1:]).encode()
    return made.encode("utf-8", "surrogatepass")


# ---- formats with a frame: lengths, checksums and directories stay right ----


def safetensors_header(draw: Random, data: bytes) -> bytes:
    """Names, shapes, types and places of tensors, under a length that is right."""
    (length,) = struct.unpack("<Q", data[:8])
    if draw.randrange(8) == 0:
        return struct.pack("<Q", draw.choice((0, 1, length - 1, length + 1, 2**40, 2**63, 2**64 - 1))) + data[8:]
    header = parsed(draw, data[8 : 8 + length])
    return struct.pack("<Q", len(header)) + header + data[8 + length :]


def zipped(within: Mutation) -> Mutation:
    """A mutation of one member of a zip archive; its CRC is right again."""

    def mutate(draw: Random, data: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            held = [(member, archive.read(member)) for member in archive.infolist()]
        at = draw.randrange(len(held))
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for number, (member, content) in enumerate(held):
                archive.writestr(member.filename, within(draw, content) if number == at else content)
        return made.getvalue()

    return mutate


def zip_names(draw: Random, data: bytes) -> bytes:
    """Names and kinds of an archive's members become others."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = [(member.filename, archive.read(member)) for member in archive.infolist()]
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in held:
            odd = draw.choice(
                ("../up", "/abs", "", "a/../../b", "x" * 300, name + "/", "a\\..\\b", "C:\\x", ".", "é", name)
            )
            member = zipfile.ZipInfo(odd if draw.randrange(2) else name)
            member.external_attr = draw.choice((0, 0o644 << 16, 0o120777 << 16, 0o010644 << 16, 0xFFFFFFFF))
            archive.writestr(member, content)
    return made.getvalue()


def gzipped(within: Mutation) -> Mutation:
    def mutate(draw: Random, data: bytes) -> bytes:
        return gzip.compress(within(draw, gzip.decompress(data)), mtime=0)

    return mutate


def tfrecord(draw: Random, data: bytes) -> bytes:
    """Bytes of one Example, or numbers of one of its features, under checksums that are right."""
    from bertkit.data.pretraining.formats.tf_example import framed

    examples = list(_frames(data))
    at = draw.randrange(len(examples))
    how = draw.randrange(5)
    if how == 0:
        del examples[at]
    elif how == 1:
        examples.insert(at, draw.choice((b"", examples[at], draw.randbytes(20))))
    else:
        examples[at] = any_bytes(draw, examples[at])
    return b"".join(framed(one) for one in examples)


def _frames(data: bytes) -> Any:
    place = 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        yield data[place + 12 : place + 12 + length]
        place += length + 16


def on_file(change: Callable[[Random, Path], None], suffix: str) -> Mutation:
    """A mutation by a library that needs a file."""

    def mutate(draw: Random, data: bytes) -> bytes:
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"file{suffix}")
            path.write_bytes(data)
            change(draw, path)
            return path.read_bytes()

    return mutate


def _change_hdf5(draw: Random, path: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        name = draw.choice(sorted(file))
        array = np.asarray(file[name])
        how = draw.randrange(6)
        del file[name]
        if how == 0:
            return
        if how == 1:
            file.create_group(name)
        elif how == 2:
            file.create_dataset(name, data=draw.choice(_odd_arrays(array)))
        elif how == 3:
            file.create_dataset(name, shape=(10**15, *array.shape[1:]), chunks=(1, *array.shape[1:]), dtype=array.dtype)
        elif how == 4:
            file[draw.choice([each for each in ("other", "input_ids2", "labels") if each not in file])] = array
        else:
            file.create_dataset(name, data=_odd_values(draw, array))


def _odd_arrays(array: np.ndarray) -> list[Any]:
    return [
        array.astype(np.float64) + 0.5, array.astype("S4"), array.astype(bool), array.astype(np.uint64), array[:-1],
        array[:0], array.ravel(), np.int64(3), "text", array[..., None], array.astype(np.complex64), np.float32("nan"),
        np.zeros(len(array), np.dtype([("a", "i4")])), np.concatenate([array, array]), array.astype(np.int64) + 2**40,
    ]  # fmt: skip


def _odd_values(draw: Random, array: np.ndarray) -> np.ndarray:
    made = array.astype(np.int64)
    for _ in range(draw.choice((1, 1, 3))):
        made.ravel()[draw.randrange(made.size)] = draw.choice((-1, 1, 2, 3, 7, 255, 10**6, 2**31, 2**40, -(2**62)))
    return made


def _change_parquet(draw: Random, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    at = draw.randrange(table.num_columns)
    name, column = table.column_names[at], table.column(at).combine_chunks()
    rows = len(column)
    odd: list[Callable[[], Any]] = [
        lambda: None, lambda: pa.nulls(rows), lambda: column.dictionary_encode(), lambda: pa.array([[1, 2]] * rows),
        lambda: pa.array([None, *column.to_pylist()[1:]], column.type), lambda: pa.array([{"a": 1}] * rows),
        lambda: pa.array([1.5] * rows), lambda: pa.array([2**40] * rows), lambda: pa.array([-1] * rows),
        lambda: pa.array([b"\xff\x00"] * rows), lambda: pa.array(["nobody knows"] * rows),
        lambda: pa.array([""] * rows),
        lambda: pa.array([True] * rows), lambda: pa.array(column.to_pylist(), pa.large_string()),
        lambda: pa.array(column.to_pylist()[::-1], column.type), lambda: pa.array([b"\x93NUMPY\x01\x00"] * rows),
        lambda: pa.array([[str(value)] for value in column.to_pylist()]),
        lambda: pa.array([0] * rows, pa.timestamp("s")),
        lambda: column.cast(pa.string_view()),
    ]  # fmt: skip
    try:
        new = draw.choice(odd)()
    except (pa.ArrowException, TypeError, ValueError):  # this column cannot be of that type
        new = None
    made = table.drop_columns([name]) if new is None else table.set_column(at, name, new)
    if draw.randrange(10) == 0:
        made = made.rename_columns(["x" if each == name else each for each in made.column_names])
    if draw.randrange(10) == 0:
        made = made.slice(0, 0)
    pq.write_table(made, path)


hdf5 = on_file(_change_hdf5, ".hdf5")
parquet = on_file(_change_parquet, ".parquet")
