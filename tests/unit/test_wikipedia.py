"""Wikipedia's dumps: which is meant, how it comes here, which pages are articles, and what of their text is kept."""

from __future__ import annotations

import bz2
import errno
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bertkit.cli.data import app
from bertkit.data.fetching import bring_named
from bertkit.data.pretraining.prepare.sources import detect
from bertkit.data.pretraining.prepare.texts import Notes, documents
from bertkit.data.pretraining.wikipedia import extraction, getting, streams
from bertkit.data.pretraining.wikipedia.articles import Site, kind_of, read_page, read_site
from bertkit.data.pretraining.wikipedia.dump import Dump, dump_in
from bertkit.data.pretraining.wikipedia.extraction import extract
from bertkit.data.pretraining.wikipedia.streams import head as head_of
from bertkit.data.pretraining.wikipedia.streams import pages, plan
from bertkit.errors import UserError
from bertkit.files import downloads
from bertkit.files.disk import read_sealed
from in_thread import in_thread
from wiki_dump import DumpServer, cut_anywhere, head, multistream, page

pytest.importorskip("mwparserfromhell")
from bertkit.data.pretraining.wikipedia.wikitext import plain_text

MEDIA = ("category", "file", "image")
ARTICLES = [
    page(1, "April", "'''April''' is a [[month]].{{cite|{{a}}}} It has 30 days.\n\nIt comes after [[March]]."),
    page(2, "Apr", "#REDIRECT [[April]]", redirect="April"),
    page(3, "Talk", "Not an article.", namespace=1),
    page(4, "April (disambiguation)", "* [[April]]"),
    page(5, "May", "{{Hndis|May}} '''May''' may mean"),
    page(6, 'Quo"te & <tag>', 'A "quoted" text & a &lt;/doc> in it.\n\n&lt;doc id="1"> begins no article.'),
    page(7, "Only a table", "{|\n| x\n|}"),
    page(8, "日本", "日本は[[島国]]である。人口は多い。"),
    page(9, "Data", '{"a": 1}', model="json"),
    page(10, "Left", "Open {{template\n\nA closed [[link]]."),
]


@pytest.fixture
def server() -> Iterator[DumpServer]:
    with in_thread(DumpServer(multistream(ARTICLES))) as made:
        yield made


def get(server: DumpServer, folder: Path, *more: str) -> tuple[Path, list[str]]:
    """The text's folder, and what was said."""
    options = ["get", "wikipedia", "--language", "simple", "--data-dir", str(folder), "--workers", "1", *more]
    result = CliRunner(env={"BERTKIT_MIRROR": server.url}).invoke(app, options)
    if isinstance(result.exception, UserError):
        raise result.exception
    assert result.exit_code == 0, result.exception
    return folder / "wikipedia" / "simplewiki-20260901" / "text", result.stderr.splitlines()


def put(folder: Path, packed: bytes) -> tuple[Dump, Path]:
    """A dump that is here already, and its folder."""
    dump = Dump("simple", "20260901", hashlib.sha1(packed, usedforsecurity=False).hexdigest())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / dump.name).write_bytes(packed)
    return dump, folder


def texts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "text").iterdir())}


def many(count: int) -> list[str]:
    return [
        page(n, f"Page {n}", f"'''Page''' {n} is about {{{{t|{n}}}}} [[number|numbers]] ä {n}.") for n in range(count)
    ]


# ---- the whole way ----


def test_the_latest_dump_becomes_articles_with_their_boundaries(server: DumpServer, tmp_path: Path) -> None:
    text, said = get(server, tmp_path)
    assert "wikipedia: the latest dump of simplewiki is of 20260901" in said
    assert any("CC BY-SA 4.0" in line for line in said)
    sha256 = hashlib.sha256(server.files[f"/dumps.wikimedia.org/simplewiki/20260901/{server.name}"]).hexdigest()
    assert any(f"published SHA-1; its SHA-256 is {sha256}" in line for line in said)
    assert "simplewiki-20260901: articles: 4; text: 0.0 MB" in said
    assert (
        "simplewiki-20260901: left out: articles without text: 1; disambiguation pages: 2; "
        "pages of other namespaces: 1; pages that are no wikitext: 1; paragraphs with unclosed markup: 1; redirects: 1"
    ) in said
    (file,) = text.iterdir()
    assert file.read_text(encoding="utf-8").startswith(
        '<doc id="1" url="https://simple.wikipedia.org/wiki?curid=1" title="April">\nApril\n\n'
        "April is a month. It has 30 days.\nIt comes after March.\n</doc>\n"
    )
    assert detect(file) == "wiki"
    notes = Notes()
    assert [" ".join(sentences) for sentences in documents(file, "wiki", 0, -1, notes)] == [
        "April is a month. It has 30 days. It comes after March.",
        'A "quoted" text & a </doc> in it. <doc id="1"> begins no article.',
        "日本は島国である。 人口は多い。",
        "A closed link.",
    ]
    manifest = read_sealed(text.parent / "manifest.json")
    assert manifest["source"]["sha256"] == sha256
    assert manifest["files"][0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not (text.parent / ".unfinished").exists()


def test_what_is_complete_is_neither_fetched_nor_made_again(server: DumpServer, tmp_path: Path) -> None:
    text, _ = get(server, tmp_path)
    next(text.parent.glob("*.bz2")).unlink()  # the text is enough
    asked = len(server.asked)
    assert get(server, tmp_path, "--date", "20260901")[1] == [f"wikipedia: {text} was complete already"]
    assert len(server.asked) == asked
    assert get(server, tmp_path)[1][-1] == f"wikipedia: {text} was complete already"
    assert [name for name, _ in server.asked[asked:]] == ["simplewiki-latest-sha1sums.txt"]
    verified = CliRunner().invoke(app, ["verify", "wikipedia", "--data-dir", str(tmp_path)])
    assert (verified.exit_code, verified.stdout.split()[0]) == (0, "ok")
    next(text.iterdir()).write_text("changed")
    verified = CliRunner().invoke(app, ["verify", "--data-dir", str(tmp_path)])
    assert (verified.exit_code, verified.stdout.split()[0]) == (1, "differs")


def test_a_download_that_breaks_off_goes_on_where_it_stopped(server: DumpServer, tmp_path: Path) -> None:
    server.cuts = [100, 200]
    get(server, tmp_path, "--date", "20260901")
    assert [asked for name, asked in server.asked if name == server.name] == [None, "bytes=100-", "bytes=300-"]


def test_a_killed_download_is_taken_up(server: DumpServer, tmp_path: Path) -> None:
    packed = server.files[f"/dumps.wikimedia.org/simplewiki/20260901/{server.name}"]
    folder = tmp_path / "wikipedia" / "simplewiki-20260901"
    folder.mkdir(parents=True)
    (folder / f"{server.name}.part").write_bytes(packed[:777])
    get(server, tmp_path)
    assert (server.name, "bytes=777-") in server.asked


def test_another_file_than_the_published_one_is_refused(server: DumpServer, tmp_path: Path) -> None:
    packed = server.files[f"/dumps.wikimedia.org/simplewiki/20260901/{server.name}"]
    server.files[f"/dumps.wikimedia.org/simplewiki/20260901/{server.name}"] = packed[:-1] + b"\0"
    with pytest.raises(UserError, match=r"has the digest [0-9a-f]{40}, published is [0-9a-f]{40}; it was removed"):
        get(server, tmp_path)
    assert not list(tmp_path.rglob("*.bz2*"))
    assert not list(tmp_path.rglob("text"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--date", "20250101"], "404.*check --language and --date, or put simplewiki-20250101-sha1sums.txt into"),
        (["--date", "yesterday"], "'yesterday' is no date of a dump"),
        (["--language", "../en"], "is no Wikipedia's"),
        (["--language", ""], "which Wikipedia"),
    ],
)
def test_what_can_be_no_dump_is_refused(server: DumpServer, tmp_path: Path, options: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        get(server, tmp_path, *options)
    assert not list(tmp_path.iterdir())


def test_what_another_process_made_meanwhile_is_taken(
    server: DumpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, _ = get(server, tmp_path)
    seen: list[Path] = []

    def missing_at_first(folder: Path) -> Path | None:
        seen.append(folder)
        return text if len(seen) > 1 else None

    monkeypatch.setattr(getting, "_complete", missing_at_first)
    monkeypatch.setattr(getting, "extract", lambda *arguments: 1 / 0)
    get(server, tmp_path)
    assert len(seen) == 2


def test_a_dump_that_is_not_finished_is_refused(server: DumpServer, tmp_path: Path) -> None:
    name = "/dumps.wikimedia.org/simplewiki/latest/simplewiki-latest-sha1sums.txt"
    server.files[name] = server.files[name].split(b"\n")[0] + b"\n"
    with pytest.raises(UserError, match="may not be finished yet"):
        get(server, tmp_path)


def test_wikipedias_options_are_for_wikipedia(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["get", "sample", "--language", "de", "--data-dir", str(tmp_path)])
    assert "--language is for wikipedia alone" in str(result.exception)
    result = CliRunner().invoke(app, ["get", "wikipedia", "nonsense", "--language", "de", "--data-dir", str(tmp_path)])
    assert "no data called 'nonsense'" in str(result.exception)
    with pytest.raises(UserError, match="bertkit data get wikipedia --language"):
        bring_named(["Wikipedia"], tmp_path, lambda line: None)
    options = ["get", "wikipedia", "--language", "de", "--data-dir", str(tmp_path), "--dry-run"]
    assert "would download the dump of latest" in CliRunner().invoke(app, options).stderr
    assert not list(tmp_path.iterdir())


def test_a_wikis_name_and_the_day_are_read_from_the_checksums() -> None:
    sums = f"{'a' * 40}  zh_yuewiki-20260901-pages-articles-multistream.xml.bz2\n"
    assert dump_in(sums, "zh-yue") == Dump("zh-yue", "20260901", "a" * 40)
    assert dump_in(sums, "zh") is None
    assert dump_in(sums.replace("-multistream.xml", "-multistream1.xml-p1p9"), "zh-yue") is None


# ---- pieces ----


@settings(max_examples=40)
@given(cuts=st.integers(50, 3000), piece=st.integers(1, 4000), count=st.integers(0, 12), whole_streams=st.booleans())
def test_every_page_is_in_one_piece(
    tmp_path_factory: pytest.TempPathFactory, cuts: int, piece: int, count: int, whole_streams: bool
) -> None:
    made = many(count)
    packed = multistream(made, per_stream=1 + cuts % 4) if whole_streams else cut_anywhere(made, cuts)
    path = tmp_path_factory.mktemp("dump") / "d.bz2"
    path.write_bytes(packed)
    planned = plan(path, piece)
    assert (planned.bytes, planned.sha256) == (len(packed), hashlib.sha256(packed).hexdigest())
    assert (planned.pieces[0][0], planned.pieces[-1][1]) == (0, len(packed))
    found = [xml for start, stop in planned.pieces for xml in pages(path, start, stop)]
    assert found == [text.strip().encode() for text in made]


def test_streams_are_found_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = multistream(many(9))
    path = tmp_path / "d.bz2"
    path.write_bytes(packed)
    wanted = plan(path, 1).pieces
    assert len(wanted) == 7
    for size in (10, 11, 64, 333):
        monkeypatch.setattr(streams, "BLOCK", size)
        assert plan(path, 1).pieces == wanted
    monkeypatch.setattr(streams, "BLOCK", 97)
    assert [len(list(pages(path, *piece))) for piece in wanted] == [0, 2, 2, 2, 2, 1, 0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda packed: packed[:-30], "is cut off in the bzip2 stream at byte|ends before </mediawiki>"),
        (lambda packed: packed[: packed.rindex(b"BZh91AY&SY")], "ends before </mediawiki>"),
        (lambda packed: packed[:-700] + b"\0" * 50 + packed[-650:], "is damaged in the bzip2 stream"),
        (lambda packed: b"<mediawiki>" + packed, "is no bzip2 file"),
        (lambda packed: bz2.compress(b"<html>"), "is no dump of a wiki"),
        (lambda packed: bz2.compress((head() + page(1, "A", "x")[:-20]).encode()), "ends within a page"),
        (
            lambda packed: bz2.compress((head() + page(1, "A", "x").replace("</title>", "</titel>")).encode()),
            "its XML is damaged",
        ),
        (lambda packed: bz2.compress(head("de").encode() + b"</mediawiki>"), "is a dump of dewiki, not of simplewiki"),
    ],
)
def test_a_damaged_dump_is_refused_and_gives_no_text(tmp_path: Path, damage, said: str) -> None:  # type: ignore[no-untyped-def]
    dump, folder = put(tmp_path / "w", damage(multistream(many(20))))
    with pytest.raises(UserError, match=said):
        extract(dump, folder, 1, lambda line: None)
    assert not (folder / "text").exists()


def test_a_page_of_any_length_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "LONGEST_PAGE", 1 << 16)
    dump, folder = put(tmp_path / "w", multistream([page(1, "A", "x" * (3 << 20))]))
    with pytest.raises(UserError, match="a page has over 0 MB"):
        extract(dump, folder, 1, lambda line: None)


# ---- going on ----


def test_the_bytes_are_the_same_whatever_the_number_of_processes(tmp_path: Path) -> None:
    packed = multistream(many(30), per_stream=3)
    found = []
    for workers in (1, 2):
        dump, folder = put(tmp_path / str(workers), packed)
        extract(dump, folder, workers, lambda line: None, piece=1000)
        found.append(texts(folder))
    assert found[0] == found[1]
    assert len(found[0]) > 2


def test_an_interrupted_extraction_goes_on_at_a_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump, folder = put(tmp_path / "a", multistream(many(30), per_stream=3))
    extract(dump, folder, 1, lambda line: None, piece=500)
    whole = texts(folder)
    assert len(whole) > 5
    dump, folder = put(tmp_path / "b", (tmp_path / "a" / dump.name).read_bytes())
    made: list[int] = []
    real = extraction.extract_piece

    def counted(work: extraction.Extraction, number: int) -> dict[str, object]:
        made.append(number)
        if len(made) == 4:
            raise KeyboardInterrupt
        return real(work, number)

    monkeypatch.setattr(extraction, "extract_piece", counted)
    with pytest.raises(UserError, match="stopped"):
        extract(dump, folder, 1, lambda line: None, piece=500)
    assert not (folder / "text").exists()
    (folder / ".unfinished" / "text" / "wiki_00001.txt").write_text("damaged")
    said: list[str] = []
    extract(dump, folder, 1, said.append, piece=500)
    assert "b: resuming the extraction of an earlier run" in said
    assert any("piece-00001.json and its text are not as they were written" in line for line in said)
    assert made[4:] == [1, *range(3, len(whole))]
    assert texts(folder) == whole


def test_a_kill_between_the_last_steps_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump, folder = put(tmp_path / "a", multistream(many(6)))
    real = extraction.write_sealed
    monkeypatch.setattr(
        extraction, "write_sealed", lambda path, value: 1 / 0 if path.name == "manifest.json" else real(path, value)
    )
    with pytest.raises(ZeroDivisionError):
        extract(dump, folder, 1, lambda line: None)
    whole = texts(folder)
    monkeypatch.setattr(extraction, "write_sealed", real)
    monkeypatch.setattr(extraction, "extract_piece", lambda work, number: 1 / 0)
    assert extract(dump, folder, 1, lambda line: None)["counts"]["articles"] == 6
    assert texts(folder) == whole


def test_what_is_not_known_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = multistream([page(1, "A", "Text.")], language="szl")
    packed = bz2.compress(bz2.decompress(packed).replace(b'version="0.11"', b'version="0.12"'))
    _, folder = put(tmp_path / "a", packed)
    dump = Dump("szl", "20260901", "")
    (folder / "simplewiki-20260901-pages-articles-multistream.xml.bz2").rename(folder / dump.name)
    said: list[str] = []
    (folder / "text").mkdir()
    (folder / "text" / "wiki_00009.txt").write_text("of an earlier version")
    monkeypatch.setattr(extraction, "plain_text", lambda text, media: None)
    assert extract(dump, folder, 1, said.append)["counts"] == {"articles that the parser gave up": 1}
    assert [path.name for path in (folder / "text").iterdir()] == ["wiki_00000.txt"]
    assert any("of export schema '0.12', which is not known, and read as 0.11" in line for line in said)
    assert any("in szl none is known by name" in line for line in said)


def test_a_parser_that_gives_up_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import mwparserfromhell

    def deep(text: str, skip_style_tags: bool) -> None:
        raise RecursionError

    monkeypatch.setattr(mwparserfromhell, "parse", deep)
    assert plain_text("a", MEDIA) is None


def test_a_disk_that_is_full_while_the_dump_comes_keeps_what_came(
    server: DumpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads.os, "fsync", full)
    with pytest.raises(UserError, match=r"part: cannot be written: No space left on device; choose another folder"):
        get(server, tmp_path, "--date", "20260901")
    monkeypatch.undo()
    get(server, tmp_path, "--date", "20260901")


def test_work_of_another_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump, folder = put(tmp_path / "a", multistream(many(6)))
    monkeypatch.setattr(extraction, "replace_folder", lambda old, new: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        extract(dump, folder, 1, lambda line: None)
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "VERSION", 99)
    said: list[str] = []
    extract(dump, folder, 1, said.append)
    assert any("another dump or another version, and is made anew" in line for line in said)


def test_a_full_disk_is_said_and_leaves_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dump, folder = put(tmp_path / "a", multistream(many(12)))
    real, writes = extraction._write_page, list[int]()

    def full(*arguments: object) -> None:
        writes.append(1)
        if len(writes) > 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(extraction, "_write_page", full)
    with pytest.raises(UserError, match=r"wiki_0000\d\.txt: cannot be written: No space left on device; free some"):
        extract(dump, folder, 1, lambda line: None, piece=500)
    assert not list(folder.rglob("*.part"))
    monkeypatch.undo()
    assert extract(dump, folder, 1, lambda line: None, piece=500)["counts"]["articles"] == 12


@pytest.mark.slow
def test_killed_at_any_time_the_text_is_the_same(tmp_path: Path) -> None:
    packed = multistream(many(150), per_stream=3)
    dump, folder = put(tmp_path / "a", packed)
    extract(dump, folder, 1, lambda line: None, piece=1500)
    whole = texts(folder)
    dump, folder = put(tmp_path / "b", packed)
    program = (
        "import sys; from pathlib import Path; from bertkit.data.pretraining.wikipedia.dump import Dump\n"
        "from bertkit.data.pretraining.wikipedia.extraction import extract\n"
        f"extract(Dump('simple', '20260901', {dump.sha1!r}), Path(sys.argv[1]), 2, print, piece=1500)"
    )
    command = [sys.executable, "-c", f"if __name__ == '__main__':\n exec({program!r})", str(folder)]
    killed = 0
    for wait_for in (1, len(whole) // 3, len(whole) // 2):  # notes of pieces
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(folder.glob(".unfinished/piece-*.json"))) < wait_for:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed
    extract(dump, folder, 1, lambda line: None, piece=1500)
    assert texts(folder) == whole


# ---- pages ----


def site(language: str = "simple", names: dict[int, str] | None = None, path: Path = Path("d.bz2")) -> Site:
    return read_site(head(language, names).encode() + b"</mediawiki>", language, path)


def test_the_dump_tells_its_wiki_and_its_words_for_files(tmp_path: Path) -> None:
    german = site("de", {6: "Datei", 14: "Kategorie"})
    assert (german.wiki, german.base, german.version) == ("dewiki", "https://de.wikipedia.org", "0.11")
    assert {"datei", "kategorie", "file", "image", "category", "bild"} <= set(german.media)
    assert german.known
    assert not site("szl").known
    path = tmp_path / "d.bz2"
    path.write_bytes(bz2.compress((head() + page(1, "A", "x")).encode()))
    assert read_site(head_of(path), "simple", path) == site()


@pytest.mark.parametrize(
    ("language", "made", "kind"),
    [
        ("simple", page(1, "A", "Text."), "articles"),
        ("simple", page(1, "A", "See {{disambiguation needed}}. Text {{dablink|x}}."), "articles"),
        ("simple", page(1, "A", "{{ Disambig\n}}"), "disambiguation pages"),
        ("simple", page(1, "A", "{{Template:Disambig|x={{y}}}}"), "disambiguation pages"),
        ("simple", page(1, "A", "x\n__DISAMBIG__"), "disambiguation pages"),
        ("de", page(1, "A", "{{Begriffsklärung}}"), "disambiguation pages"),
        ("de", page(1, "A (Begriffsklärung)", "x"), "disambiguation pages"),
        ("zh", page(1, "甲（消歧义）", "x"), "disambiguation pages"),
        ("simple", page(1, "A", "#REDIRECT [[B]]", redirect="B"), "redirects"),
        ("simple", page(1, "A", "x", namespace=10), "pages of other namespaces"),
        ("simple", page(1, "A", "{}", model="json"), "pages that are no wikitext"),
    ],
)
def test_which_pages_are_articles(language: str, made: str, kind: str) -> None:
    assert kind_of(read_page(made.strip().encode(), Path("d")), site(language)) == kind


def test_of_several_revisions_the_last_counts() -> None:
    made = page(1, "A", "new")
    revision = made[made.index("    <revision>") : made.index("  </page>")]
    old = made.replace(revision, revision.replace("new", "old") + revision)
    assert read_page(old.strip().encode(), Path("d")).text == "new"
    hidden = made.replace(made[made.index("<text ") : made.index("<sha1>q")], '<text bytes="0" deleted="deleted" />')
    assert read_page(hidden.strip().encode(), Path("d")).text == ""


# ---- wikitext ----


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{{Infobox|a={{b|{{c}}}}|d=[[e]]}}Text.", ["Text."]),
        ("A<ref name=x>{{cite|[[y]]}} z</ref> b<ref name=x />.", ["A b."]),
        ("A (born {{date|1900}}; {{age}}) b ({{x}}), c {{y}}, d.", ["A (born) b, c, d."]),
        ("A<ref>''b’’, ''c {{d</ref> e.<ref>f</ref>", ["A e."]),  # what is wrong within does not reach beyond
        ("A <REF\nname='x'>b</Ref >c <nowiki><ref></nowiki> d<!-- <ref> --> e.", ["A c <ref> d e."]),
        ("A<!-- not closed <ref>", ["A"]),
        ("{|\n|-\n| align=right| '''{{a|2||3}}\n|}\n\nProse.\n\n{|\n| ''b\n|}", ["Prose."]),
        ("{|\n|-\n| a || {{b}}\n{|\n| inner\n|}\n|}\nAfter.", ["After."]),
        ("== Head ==\nText\nof one paragraph.\n=== Sub ===\nMore.", ["Text of one paragraph.", "More."]),
        ("One.\n* item\n# number\n: indented\n; term : meaning\nTwo.", ["One.", "Two."]),
        ("'''Bold ''and'' italic''' <b>tag</b> H<sub>2</sub>O<br/>line.", ["Bold and italic tag H2O line."]),
        ("[[File:a.jpg|thumb|a [[caption]] of {{x}}]] A [[dog|dogs]] [[cat]]s [[:Category:Pets]].",
         ["A dogs cats Category:Pets."]),
        ("A.\n[[Category:Pets]]\n[[de:Hund]]\n[[zh-yue:狗]]\n[[be-x-old:Сабака]]", ["A."]),
        ("[[35&nbsp;mm film]], [[Kruskal&ndash;Wallis test]] [[#Uses]].", ["35 mm film, Kruskal–Wallis test #Uses."]),
        ("[http://a.b text] [http://a.b] http://a.b end.", ["text end."]),
        ("A &lt;b&gt; &amp; &nbsp;c &#91;&#91;d&#93;&#93; &ndash; &#x1F600;.", ["A <b> & c [[d]] – 😀."]),
        ("<nowiki>[[no link]] {{no}} ''x'' &lt;</nowiki> y.", ["[[no link]] {{no}} ''x'' < y."]),
        ("<!-- [[a]] {{ -->A.<math>x_1</math><gallery>\nFile:a|b\n</gallery>", ["A."]),
        ("<syntaxhighlight lang='c'>int x;</syntaxhighlight>A.<score>c</score>", ["A."]),
        ("__NOTOC__A.__KEIN_INDEX__ a__b__c", ["A. a__b__c"]),
        ("-{zh-hans:软件;zh-hant:軟體}-是-{A|程序}-。", ["软件是程序。"]),
        ("<blockquote>Quote.</blockquote>After.<div>Block.</div>", ["Quote.", "After.", "Block."]),
        ("Unicode: Ünïcödé 日本 עברית 🏴 e\u0301.", ["Unicode: Ünïcödé 日本 עברית 🏴 e\u0301."]),
        ("(-5 to 3 m, .5 {{x}}.)", ["(-5 to 3 m, .5.)"]),
        ("می&zwnj;خواهم&lrm; <includeonly>x</includeonly>", ["می\u200cخواهم"]),
        ("123.\n\n...\n\n日.", ["日."]),
        ("</ref>A stray <ref b.", ["A stray <ref b."]),
        ("a < b and c > d", ["a < b and c > d"]),
        ("", []),
    ],
)  # fmt: skip
def test_wikitext_becomes_paragraphs(text: str, wanted: list[str]) -> None:
    found = plain_text(text, MEDIA)
    assert found is not None
    assert (list(found.paragraphs), found.left) == (wanted, 0)


@pytest.mark.parametrize("text", ["{{open", "a [[open", "{| open\n| b", "closed }}", "| row"])
def test_unclosed_markup_is_left_out_and_counted(text: str) -> None:
    found = plain_text(f"Before.\n\n{text}\n\nAfter.", MEDIA)
    assert found is not None
    assert list(found.paragraphs)[:1] == ["Before."]
    assert found.left >= 1
    assert not any(sign in paragraph for paragraph in found.paragraphs for sign in ("{{", "[[", "{|", "}}"))


@given(st.text(alphabet="ab{}[]|<>='*#\n&;/!-_ ", max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    found = plain_text(text, MEDIA)
    if found is not None:
        for paragraph in found.paragraphs:
            assert paragraph == paragraph.strip()
            assert not set(paragraph) & set(map(chr, range(32)))


def test_deep_nesting_ends() -> None:
    for text in (
        "<ref>" * 100_000,
        "<ref " * 300,
        "<!--" * 100_000,
        "{{a|" * 300,
        "[[" * 3000,
        "<b>" * 300 + "x",
        "{{" * 500 + "x" + "}}" * 500,
    ):
        plain_text(text, MEDIA)
