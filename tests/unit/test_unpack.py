"""Unpacking archives that may want to escape their folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit.files import downloads
from bertkit.files.downloads import unpack_zip
from publisher import make_zip


def test_files_below_the_stripped_folder_are_unpacked(tmp_path: Path) -> None:
    archive = make_zip(
        tmp_path / "a.zip", {"CoLA/train.tsv": b"1", "CoLA/original/raw.tsv": b"2", "__MACOSX/._CoLA": b"3"}
    )
    unpack_zip(archive, tmp_path / "out", strip="CoLA")
    assert (tmp_path / "out" / "train.tsv").read_bytes() == b"1"
    assert (tmp_path / "out" / "original" / "raw.tsv").read_bytes() == b"2"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["original", "train.tsv"]


def test_only_the_named_files_are_unpacked(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"CoLA/train.tsv": b"1", "CoLA/test.tsv": b"2"})
    unpack_zip(archive, tmp_path / "out", strip="CoLA", only=["test.tsv"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["test.tsv"]
    with pytest.raises(UserError, match=r"holds no dev\.tsv"):
        unpack_zip(archive, tmp_path / "out", strip="CoLA", only=["train.tsv", "dev.tsv"])
    assert not (tmp_path / "out" / "train.tsv").exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:/evil", "C:evil"])
def test_a_member_that_would_escape_refuses_the_whole_archive(name: str, tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"good": b"1", name: b"2"})
    with pytest.raises(UserError, match="would leave its folder"):
        unpack_zip(archive, tmp_path / "in" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.zip"]


def test_a_link_refuses_the_whole_archive(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"good": b"1"}, links={"link": "/etc"})
    with pytest.raises(UserError, match="is a link"):
        unpack_zip(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "MAX_UNPACKED", 100_000)
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(60_000), "more": bytes(60_000)})
    assert archive.stat().st_size < 1000
    with pytest.raises(UserError, match="over 100000 bytes"):
        unpack_zip(archive, tmp_path / "out")
    unpack_zip(archive, tmp_path / "out", only=["more"])
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["more"]


def test_a_member_larger_than_it_says_is_refused(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"zeros": bytes(60_000)})
    true_size, lie = (60_000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    raw = archive.read_bytes()
    assert raw.count(true_size) == 2  # in the member's header and in the directory
    archive.write_bytes(raw.replace(true_size, lie))
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_zip(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_damaged_archive_leaves_the_old_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("train.tsv", b"new" * 1000)
    raw = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(raw.replace(b"newnew", b"nEwnew", 1))
    (tmp_path / "train.tsv").write_bytes(b"old")
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_zip(tmp_path / "a.zip", tmp_path)
    assert (tmp_path / "train.tsv").read_bytes() == b"old"
    (tmp_path / "a.zip").write_text("<html>log in first</html>")
    with pytest.raises(UserError, match="not a zip file"):
        unpack_zip(tmp_path / "a.zip", tmp_path)


def test_files_that_were_packed_without_their_folder_are_found(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"vocab.txt": b"1", "bert_config.json": b"2"})
    unpack_zip(archive, tmp_path / "out", strip="uncased_L-2_H-128_A-2", only=["vocab.txt", "bert_config.json"])
    assert (tmp_path / "out" / "vocab.txt").read_bytes() == b"1"
    with pytest.raises(UserError, match=r"holds no other\.txt"):
        unpack_zip(archive, tmp_path / "out", strip="uncased_L-2_H-128_A-2", only=["other.txt"])


def test_a_member_without_a_name_is_damage(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", {"a/b.txt": b"hello", "a/c.txt": b"there"})
    raw = archive.read_bytes()
    place = raw.rindex(b"a/b.txt")
    archive.write_bytes(raw[:place] + b"\0" + raw[place + 1 :])  # zipfile ends a name at its first NUL
    with pytest.raises(UserError, match="cannot be unpacked: a member has no name"):
        unpack_zip(archive, tmp_path / "out")


def test_every_changed_byte_is_one_line_or_harmless(tmp_path: Path) -> None:
    """All bytes of a small archive, each set to three other values."""
    wanted = {"a/b.txt": b"hello " * 80, "a/c/d.txt": b"x"}
    raw = make_zip(tmp_path / "a.zip", wanted).read_bytes()
    changed = tmp_path / "changed.zip"
    for at in range(len(raw)):
        for value in {0, 255, raw[at] ^ 1} - {raw[at]}:
            changed.write_bytes(raw[:at] + bytes([value]) + raw[at + 1 :])
            out = tmp_path / f"{at}-{value}"
            try:
                unpack_zip(changed, out, only=list(wanted))
            except UserError:
                continue
            assert {name: (out / name).read_bytes() for name in wanted} == wanted
