"""Text, JSON, TOML and numbers from outside: whatever is wrong with them is a UserError of one short line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bertkit.errors import CAUSE_LIMIT, CURE_LIMIT, UserError
from bertkit.files import inputs


def folder(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 40)


def latin1(path: Path) -> None:
    path.write_bytes("é".encode("latin-1"))


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


FILES: dict[Callable[[Path], None], str] = {
    folder: "is a folder, not a file",
    pipe: "is a named pipe, not a file",
    sparse: "1,099,511,627,776 bytes",
    latin1: "not UTF-8 at byte 1",
    device: "is a device, not a file",
    lambda path: None: "No such file",
}


@pytest.mark.parametrize("make", FILES, ids=lambda make: make.__name__)
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "it"
    make(path)
    with pytest.raises(UserError, match=FILES[make]):
        inputs.read_text(path)


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"], ids=["long", "NUL"])
def test_names_that_no_system_has(tmp_path: Path, name: str) -> None:
    for read in (inputs.read_text, inputs.exists, inputs.check_file):
        with pytest.raises(UserError, match="cannot be read"):
            read(tmp_path / name)


def test_what_is_absent_is_absent(tmp_path: Path) -> None:
    assert not inputs.exists(tmp_path / "a")
    assert not inputs.is_folder(tmp_path / "a" / "b")
    assert inputs.is_folder(tmp_path)
    assert not inputs.is_file(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ("9" * 5000, "a number of thousands of digits"),
        ('{"a": "\\ud83d"}', r"half of a surrogate pair, \\ud83d"),
        ('{"\\udc00": 1}', r"half of a surrogate pair, \\udc00"),
        ('{"a": 1', "f.json:1:8: not JSON"),
        (b"\xff", "not UTF-8 at byte 1"),
    ],
    ids=["deep", "digits", "half", "half a key", "cut", "bytes"],
)
def test_json_that_cannot_be(text: str | bytes, said: str) -> None:
    with pytest.raises(UserError, match=said):
        inputs.parse_json(text, "f.json")


def test_whole_pairs_and_our_own_half_ones_are_read() -> None:
    assert inputs.parse_json('"\\ud83d\\ude00"', "f") == "😀"
    assert inputs.parse_json('"caf\\udce9"', "f", half_pairs=True) == "caf\udce9"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a." * 40 + "a = 1",
        "a." * 50_000 + "a = 1",
        "a = " + "9" * 5000,
        "a = 2020-02-31",
        "a = \0",
        "a = 1 2",
    ],
)
def test_toml_that_cannot_be(text: str) -> None:
    with pytest.raises(UserError, match=r"f\.toml"):
        inputs.parse_toml(text, "f.toml")


@given(st.text(max_size=40))
@example("0\x1f")
def test_a_number_or_an_error(text: str) -> None:
    try:
        number = inputs.whole_number(text, "RANK", 0, 1000)
    except UserError:
        return
    assert 0 <= number <= 1000
    assert int(text) == number


@pytest.mark.parametrize("text", ["1_0", "１", "1e3", "", "-1", "1001", "9" * 5000])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(UserError, match="RANK is"):
        inputs.whole_number(text, "RANK", 0, 1000)


@pytest.mark.parametrize("value", [True, 1.0, "1", None, [], -1, 10**30])
def test_what_is_no_whole_value(value: object) -> None:
    with pytest.raises(UserError, match="size is"):
        inputs.whole_value(value, "size", 0, 1000)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 10**400, 1.5])
def test_what_is_no_real_value(value: object) -> None:
    with pytest.raises(UserError, match="rate is"):
        inputs.real_value(value, "rate", 0, 1)


@given(st.text(max_size=2000))
def test_messages_are_one_short_line_that_can_be_seen(text: str) -> None:
    error = UserError(text, text)
    assert len(error.cause) <= CAUSE_LIMIT + 3
    assert len(error.cure) <= CURE_LIMIT + 3
    assert all(character.isprintable() or character.isspace() or ord(character) > 0x7F for character in str(error))
    assert not set(str(error)) & set("\x1b\n\r\u202e\u2028\ud800")
    str(error).encode("utf-8")
