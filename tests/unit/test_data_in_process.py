"""`bertkit data` over a small table, in this process."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertkit.cli.data import app
from bertkit.errors import UserError
from bertkit.files import downloads
from bertkit.files.downloads import Download, DownloadSource, File
from publisher import CONTENT, SHA256, Publisher, make_zip


@pytest.fixture
def table(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plain`, whose file has a checksum, and `packed`, whose archive has none but whose file has."""
    monkeypatch.chdir(tmp_path)
    plain = Download("file", sha256=SHA256, url=publisher.url)
    packed = Download("packed.zip", url="http://127.0.0.1:9/packed.zip", unpack="zip", strip="inner")
    sources = {
        "plain": DownloadSource("plain", "", "free", "", "plain", (plain,), (File("file", sha256=SHA256),)),
        "packed": DownloadSource("packed", "", "free", "", "in/packed", (packed,), (File("file", sha256=SHA256),)),
    }
    monkeypatch.setattr(downloads, "load_sources", lambda: sources)


def refusal(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert isinstance(result.exception, UserError), result.output
    return str(result.exception)


@pytest.mark.usefixtures("table")
def test_get_fetches_what_is_missing_once(publisher: Publisher) -> None:
    first = CliRunner().invoke(app, ["get", "plain"])
    assert (first.exit_code, first.stdout) == (0, "")
    assert first.stderr == "plain: data/plain is complete; terms of use: free\n"
    assert Path("data/plain/file").read_bytes() == CONTENT
    again = CliRunner().invoke(app, ["get", "plain"])
    assert again.stderr == "plain: data/plain was complete already\n"
    assert len(publisher.asked) == 1


@pytest.mark.usefixtures("table")
def test_get_asks_a_mirror_for_the_publishers_path(publisher: Publisher) -> None:
    base = publisher.url.removesuffix("/file")
    assert CliRunner().invoke(app, ["get", "plain", "--url-base", base + "/"]).exit_code == 0
    assert "404" in refusal("get", "packed", "--url-base", base)
    assert "not an http(s) URL" in refusal("get", "packed", "--url-base", "mirror.example")


def test_a_file_without_a_checksum_is_noted_when_it_is_fetched_first(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    bare = DownloadSource("bare", "", "free", "", "bare", (Download("file", url=publisher.url),), (File("file"),))
    monkeypatch.setattr(downloads, "load_sources", lambda: {"bare": bare})
    said = CliRunner().invoke(app, ["get", "bare"]).stderr
    assert f"its SHA-256 is {SHA256}; those of its files are noted in fetched.json" in said
    noted = json.loads(Path("data/bare/fetched.json").read_text())
    assert noted["files"] == {"file": {"sha256": SHA256, "from": publisher.url}}
    verified = CliRunner().invoke(app, ["verify", "bare"])
    assert (verified.exit_code, verified.stdout.split()[0]) == (0, "noted")
    Path("data/bare/file").write_text("changed")
    verified = CliRunner().invoke(app, ["verify", "bare"])
    assert (verified.exit_code, verified.stdout.split()[0]) == (1, "differs")
    assert "not the one that was fetched first" in refusal("get", "bare")
    Path("data/bare/fetched.json").write_text("{}")
    assert "fetched.json: has no seal" in refusal("get", "bare")
    Path("data/bare/fetched.json").unlink()  # as data that was fetched before there were notes
    assert CliRunner().invoke(app, ["verify", "bare"]).stdout.split()[0] == "unknown"


@pytest.mark.usefixtures("table")
def test_get_does_not_overwrite_another_file() -> None:
    Path("data/plain").mkdir(parents=True)
    Path("data/plain/file").write_text("mine")
    assert "data/plain/file is there but is not the published file" in refusal("get", "plain")
    assert Path("data/plain/file").read_text() == "mine"


@pytest.mark.usefixtures("table")
def test_an_unreachable_host_names_the_folder_and_the_files() -> None:
    message = refusal("get", "packed")
    assert "cannot be reached" in message
    assert "put file (or packed.zip) into data/in/packed by hand" in message


@pytest.mark.usefixtures("table")
def test_an_archive_put_there_by_hand_is_unpacked() -> None:
    folder = Path("data/in/packed")
    folder.mkdir(parents=True)
    sha256 = hashlib.sha256(make_zip(folder / "packed.zip", {"inner/file": CONTENT}).read_bytes()).hexdigest()
    result = CliRunner().invoke(app, ["get", "packed"])
    assert result.exit_code == 0, result.output
    note, _ = result.stderr.splitlines()
    assert "packed.zip could not be verified" in note
    assert sha256 in note
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.usefixtures("table")
def test_an_unverified_archive_with_another_file_leaves_nothing() -> None:
    folder = Path("data/in/packed")
    folder.mkdir(parents=True)
    make_zip(folder / "packed.zip", {"inner/file": b"other"})
    message = refusal("get", "packed")
    assert SHA256 in message
    assert hashlib.sha256(b"other").hexdigest() in message
    assert not list(folder.iterdir())


@pytest.mark.usefixtures("table")
def test_verify_looks_at_what_is_there_and_exits_with_1_if_it_is_wrong() -> None:
    assert "no known data in data" in refusal("verify")
    CliRunner().invoke(app, ["get", "plain"])
    good = CliRunner().invoke(app, ["verify"])
    assert (good.exit_code, good.stdout) == (0, "ok       data/plain/file\n")
    missing = CliRunner().invoke(app, ["verify", "packed", "--json"])
    assert missing.exit_code == 1
    (entry,) = json.loads(missing.stdout)
    assert (entry["name"], entry["ok"], entry["files"][0]["state"]) == ("packed", False, "missing")
    Path("data/plain/file").write_bytes(b"damaged")
    bad = CliRunner().invoke(app, ["verify", "plain"])
    assert (bad.exit_code, bad.stdout) == (1, "differs  data/plain/file\n")


@pytest.mark.usefixtures("table")
def test_progress_without_a_terminal_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bertkit.data.fetching.EVERY_S", 0.0)
    lines = CliRunner().invoke(app, ["get", "plain"]).stderr.splitlines()
    assert lines[0] == "file: 262 kB of 1.0 MB"
    assert lines[-2] == "file: 1.0 MB of 1.0 MB"
