"""Fetching: verified, resumed, and every way in which a server can fail."""

from __future__ import annotations

import os
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit.files import downloads
from bertkit.files.downloads import Download, Unreachable, fetch, mirrored
from bertkit.files.locks import locked
from model_server import serving
from publisher import CONTENT, MD5, SHA256, Handler, Publisher, Seen, quiet


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


@pytest.mark.parametrize("begun", [0, 1000, len(CONTENT)])
def test_a_server_that_always_answers_416_is_unreachable(begun: int, tmp_path: Path) -> None:
    with serving() as server:
        server.always = 416
        if begun:
            (tmp_path / "file.part").write_bytes(CONTENT[:begun])
        with pytest.raises(Unreachable, match="416"):
            fetch(Download("file", sha256=SHA256, url=f"{server.url}/file"), tmp_path / "file", quiet)
        end = time.monotonic() + 10
        while not server.answers and time.monotonic() < end:  # noted after the answer has gone out
            time.sleep(0.01)
        assert 1 <= len(server.answers) <= 2 * downloads.ATTEMPTS


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "second name", "folder", "pipe"])
def test_a_part_file_that_leads_elsewhere_is_refused(kind: str, publisher: Publisher, tmp_path: Path) -> None:
    elsewhere, part = tmp_path / "elsewhere", tmp_path / "data" / "file.part"
    part.parent.mkdir()
    if kind != "link to nothing":
        elsewhere.write_bytes(b"mine")
    if kind.startswith("link"):
        part.symlink_to(elsewhere)
    elif kind == "second name":
        part.hardlink_to(elsewhere)
    elif kind == "folder":
        part.mkdir()
    else:
        os.mkfifo(part)
    with pytest.raises(UserError, match=r"file\.part is a link or no file.*; remove it"):
        fetch(Download("file", sha256=SHA256, url=publisher.url), part.with_name("file"), quiet)
    assert not elsewhere.exists() if kind == "link to nothing" else elsewhere.read_bytes() == b"mine"
    assert not publisher.asked
    assert [path.name for path in part.parent.iterdir()] == ["file.part"]


def test_a_mirror_has_the_publishers_hosts_as_folders() -> None:
    url = "https://dl.example/glue/data/x.zip"
    assert mirrored(url, env={}) == url
    assert mirrored(url, env={"BERTKIT_MIRROR": "http://127.0.0.1:1/all/"}) == (
        "http://127.0.0.1:1/all/dl.example/glue/data/x.zip"
    )
    assert mirrored(url, "http://here", {"BERTKIT_MIRROR": "http://127.0.0.1:1"}) == "http://here/glue/data/x.zip"


def test_a_lock_is_held_by_one_at_a_time_and_leaves_nothing(tmp_path: Path) -> None:
    path, order, waited = tmp_path / "new" / ".lock", list[str](), threading.Event()

    def second() -> None:
        with locked(path, waited.set):
            order.append("second")

    with locked(path, lambda: pytest.fail("nobody has it")):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert not path.exists()


def test_a_lock_that_a_killed_process_left_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_bytes(b"")
    with locked(tmp_path / ".lock", lambda: pytest.fail("nobody has it")):
        pass
    assert not list(tmp_path.iterdir())
