"""Downloads from a server in this process that can be told to misbehave; no network is used."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bertkit import downloads
from bertkit.commands.data import app
from bertkit.downloads import (
    Download,
    File,
    Source,
    Unreachable,
    fetch,
    find_sources,
    load_sources,
    unpack_zip,
    verify,
)
from bertkit.errors import UserError

CONTENT = bytes(range(256)) * 4096  # 1 MiB: several chunks
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()


class Publisher(ThreadingHTTPServer):
    """Serves CONTENT at /file. `cuts` are the sizes after which the next answers break off."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.sizes = True
        self.cuts: list[int] = []
        self.redirect = ""
        self.asked: list[str | None] = []  # the Range of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class Handler(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
        elif self.path != "/file":
            self.send_error(404)
        else:
            self.serve(int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0)

    def serve(self, start: int) -> None:
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        if self.server.sizes:
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        rest = CONTENT[start:]
        self.wfile.write(rest[: self.server.cuts.pop(0)] if self.server.cuts else rest)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Seen(list[tuple[int, int | None]]):
    """Remembers what it was told of the progress."""

    def __call__(self, done: int, total: int | None) -> None:
        self.append((done, total))


def quiet(done: int, total: int | None) -> None:
    pass


def make_zip(path: Path, members: dict[str, bytes], links: dict[str, str] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        for name, to in (links or {}).items():
            member = zipfile.ZipInfo(name)
            member.create_system = 3  # Unix
            member.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(member, to)
    return path


# Fetching


def test_a_download_is_verified_and_put_in_place(publisher: Publisher, tmp_path: Path) -> None:
    target, seen = tmp_path / "new" / "file", Seen()
    checked = fetch(Download("file", sha256=SHA256, url=publisher.url), target, seen)
    assert (checked.state, checked.digest) == ("ok", SHA256)
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert list(target.parent.iterdir()) == [target]


def test_a_md5_is_enough_where_only_that_is_known(publisher: Publisher, tmp_path: Path) -> None:
    assert fetch(Download("file", md5=MD5, url=publisher.url), tmp_path / "file", quiet).state == "ok"
    wrong = Download("file", md5="0" * 32, url=publisher.url)
    with pytest.raises(UserError, match=MD5):
        fetch(wrong, tmp_path / "other", quiet)


def test_without_a_checksum_the_sha256_is_told(publisher: Publisher, tmp_path: Path) -> None:
    checked = fetch(Download("file", url=publisher.url), tmp_path / "file", quiet)
    assert (checked.state, checked.digest) == ("unknown", SHA256)


def test_a_wrong_checksum_names_both_and_leaves_nothing(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fetch(Download("file", sha256="0" * 64, url=publisher.url), tmp_path / "file", quiet)
    assert SHA256 in str(caught.value)
    assert "0" * 64 in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_part_file_is_resumed(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    seen = Seen()
    fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", seen)
    assert publisher.asked == ["bytes=1000-"]
    assert seen[0][0] > 1000
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_sends_all_again(publisher: Publisher, tmp_path: Path) -> None:
    publisher.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 700_000)
    fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", quiet)
    assert publisher.asked == ["bytes=700000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_complete_part_file_is_only_verified(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    seen = Seen()
    fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", seen)
    assert not seen
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_part_file_longer_than_the_file_is_dropped(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", quiet)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_cut_connections_are_gone_on_with(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [300_000, 200_000]
    fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", quiet)
    assert publisher.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_what_came_before_the_last_cut_is_kept_for_the_next_run(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [300_000, 0]
    download = Download("file", sha256=SHA256, url=publisher.url)
    with pytest.raises(Unreachable, match=r"broke off at 300000 of 1048576 bytes; run it again"):
        fetch(download, tmp_path / "file", quiet)
    assert not (tmp_path / "file").exists()
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:300_000]
    fetch(download, tmp_path / "file", quiet)
    assert publisher.asked[-1] == "bytes=300000-"
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_that_only_drips_is_given_up(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cuts = [10] * 100
    with pytest.raises(Unreachable, match="broke off"):
        fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", quiet)
    assert len(publisher.asked) == downloads.ATTEMPTS


def test_an_answer_without_a_size_takes_the_tables(publisher: Publisher, tmp_path: Path) -> None:
    publisher.sizes = False
    seen = Seen()
    download = Download("file", sha256=SHA256, url=publisher.url, size=len(CONTENT))
    fetch(download, tmp_path / "file", seen)
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_not_fetched_again(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert fetch(Download("file", sha256=SHA256, url=publisher.url), tmp_path / "file", quiet).state == "ok"
    with pytest.raises(UserError, match="move it away"):
        fetch(Download("file", sha256="0" * 64, url=publisher.url), tmp_path / "file", quiet)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert not publisher.asked


def test_an_absent_file_is_named_with_its_url(publisher: Publisher, tmp_path: Path) -> None:
    url = publisher.url + "/absent"
    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:\d+ cannot be reached for {url}: 404"):
        fetch(Download("absent", url=url), tmp_path / "absent", quiet)
    assert not list(tmp_path.iterdir())


def test_a_refused_connection_is_unreachable_and_leaves_nothing(tmp_path: Path) -> None:
    with Publisher() as gone:
        url = gone.url
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:\d+ cannot be reached: .*refused"):
        fetch(Download("file", url=url), tmp_path / "file", quiet)
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_given_up(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(downloads, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(Handler, "serve", lambda self, start: waiting.wait(10))
    with pytest.raises(Unreachable, match="timed out"):
        fetch(Download("file", url=publisher.url), tmp_path / "file", quiet)
    waiting.set()


@pytest.mark.parametrize(
    "url", ["file:///etc/hostname", "ftp://127.0.0.1/file", "/etc/hostname", "http://", "http://[", "data:,x"]
)
def test_only_the_web_is_asked(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not an http\(s\) URL"):
        fetch(Download("file", url=url), tmp_path / "file", quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/file", f"http://{'a' * 70}.invalid/file"])
def test_an_impossible_host_is_an_error_of_the_user(url: str, tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="cannot be reached"):
        fetch(Download("file", url=url), tmp_path / "file", quiet)


def test_a_redirect_is_followed_on_the_web_only(publisher: Publisher, tmp_path: Path) -> None:
    publisher.redirect = "ftp://127.0.0.1/file"
    with pytest.raises(Unreachable, match="redirects to ftp:"):
        fetch(Download("file", url=publisher.url), tmp_path / "file", quiet)
    publisher.redirect = ""
    with Publisher() as elsewhere:
        elsewhere.redirect = publisher.url
        thread = threading.Thread(target=elsewhere.handle_request)
        thread.start()
        assert fetch(Download("file", sha256=SHA256, url=elsewhere.url), tmp_path / "file", quiet).state == "ok"
        thread.join()


def test_a_redirect_does_not_leave_https() -> None:
    follow = downloads._Redirects().redirect_request
    asked = urllib.request.Request("https://host/file")
    assert follow(asked, None, 302, "", {}, "https://other/file").full_url == "https://other/file"
    with pytest.raises(urllib.error.URLError, match="redirects to http:"):
        follow(asked, None, 302, "", {}, "http://other/file")


def test_a_folder_that_cannot_be_made_is_an_error_of_the_user(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(UserError, match="cannot be written"):
        fetch(Download("file", url=publisher.url), tmp_path / "taken" / "file", quiet)


# Unpacking


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


# Verifying and the table


def test_verify_tells_the_four_states(tmp_path: Path) -> None:
    for name in ("good", "by_md5", "changed", "any"):
        (tmp_path / name).write_bytes(CONTENT)
    files = [
        File("good", sha256=SHA256),
        File("by_md5", md5=MD5),
        File("changed", sha256="0" * 64),
        File("gone", sha256=SHA256),
        File("any"),
    ]
    found = verify(tmp_path, files)
    assert [(each.name, each.state) for each in found] == [
        ("good", "ok"),
        ("by_md5", "ok"),
        ("changed", "differs"),
        ("gone", "missing"),
        ("any", "unknown"),
    ]
    assert [each.digest for each in found] == [SHA256, MD5, SHA256, "", SHA256]


def test_the_table_holds_glue_squad_and_googles_checkpoints() -> None:
    glue = {"cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax"}
    table = load_sources()
    assert glue | {"squad", "squad2", "sample"} <= set(table)
    assert sum(source.folder.startswith("checkpoints/") for source in table.values()) == 7
    assert {table[name].folder.split("/")[0] for name in glue} == {"glue"}


def test_the_table_is_well_formed() -> None:
    taken: set[str] = set()
    for source in load_sources().values():
        assert source.title, source.name
        assert source.terms, source.name
        assert source.files, source.name
        for file in (*source.files, *source.downloads):
            assert re.fullmatch(r"([0-9a-f]{64})?", file.sha256), (source.name, file)
            assert re.fullmatch(r"([0-9a-f]{32})?", file.md5), (source.name, file)
            assert "/" not in file.name, (source.name, file)
        for download in source.downloads:
            assert re.fullmatch(r"https://[\w.-]+/[\w./-]+", download.url), download
            assert download.size is None or download.size > 0
            # Either the download or all that is in it can be verified
            assert download.sha256 or all(file.sha256 or file.md5 for file in source.files), download
        places = {f"{source.folder}/{file.name}" for file in source.files}
        assert not places & taken, source.name
        taken |= places


def test_each_file_of_the_table_comes_from_one_download() -> None:
    for source in load_sources().values():
        archives = [download for download in source.downloads if download.unpack]
        plain = {download.name: download for download in source.downloads if not download.unpack}
        if archives:
            assert (len(archives), plain) == (1, {}), source.name
        elif plain:
            assert set(plain) == {file.name for file in source.files}, source.name
            for file in source.files:
                assert plain[file.name].sha256 == file.sha256, file


def test_an_unknown_name_gets_the_nearest() -> None:
    assert [source.name for source in find_sources(["RTE", "mrpc", "rte"])] == ["rte", "mrpc"]
    with pytest.raises(UserError, match=r"no data called 'SST-2'; did you mean sst2"):
        find_sources(["SST-2"])


# The command, over a table of this file


@pytest.fixture
def table(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`plain`, whose file has a checksum, and `packed`, whose archive has none but whose file has."""
    monkeypatch.chdir(tmp_path)
    plain = Download("file", sha256=SHA256, url=publisher.url)
    packed = Download("packed.zip", url="http://127.0.0.1:9/packed.zip", unpack="zip", strip="inner")
    sources = {
        "plain": Source("plain", "", "free", "", "plain", (plain,), (File("file", sha256=SHA256),)),
        "packed": Source("packed", "", "free", "", "in/packed", (packed,), (File("file", sha256=SHA256),)),
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
    monkeypatch.setattr("bertkit.commands.data.EVERY_S", 0.0)
    lines = CliRunner().invoke(app, ["get", "plain"]).stderr.splitlines()
    assert lines[0] == "file: 262 kB of 1.0 MB"
    assert lines[-2] == "file: 1.0 MB of 1.0 MB"
