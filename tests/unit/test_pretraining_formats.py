"""What a corpus' file is: text of one of the known forms, or something else that is refused by its name."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bertkit.data.pretraining.prepare.chunks import Counts, blocks
from bertkit.data.pretraining.prepare.corpus_files import form_of
from bertkit.data.pretraining.prepare.fast_wordpiece import WordCache
from bertkit.data.pretraining.prepare.sources import CorpusFile, detect, find_sources, plan
from bertkit.data.pretraining.prepare.texts import Notes, documents
from bertkit.data.pretraining.prepare.work import load_work
from bertkit.errors import UserError
from bertkit.model.vocabulary import Vocabulary

PROSE = "The plot is good. The cast is bold.\nIt was never dull!\n"


def archive() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        file.writestr("a.txt", PROSE)
    return made.getvalue()


def table(folder: Path) -> bytes:
    pq.write_table(pa.table({"text": [PROSE]}), folder / "t")
    return (folder / "t").read_bytes()


def array(folder: Path) -> bytes:
    with h5py.File(folder / "t", "w") as file:
        file["a"] = np.zeros(3)
    return (folder / "t").read_bytes()


OTHERS: dict[str, bytes] = {
    "JSON without \"text\": its objects have 'content', 'id'": b'{"content": "The plot is good.", "id": 1}\n' * 3,
    'JSON without "text": its objects have no keys|raw': b"{} {}\n",
    "JSON without \"text\": its objects have 'a'": b'{\n "a": {"text": "The plot."}\n}\n',
    "a JSON list": json.dumps([{"text": PROSE}]).encode(),
    "comma-separated values (id, text)": b"id,text\n1,The plot is good.\n2,It was dull.\n",
    "comma-separated values (id, review text)": b'id,review text\n1,"The plot, good."\n2,"It was ""dull"","\n',
    "tab-separated columns (sentence, label)": b"sentence\tlabel\nThe plot is good .\t1\nIt was dull .\t0\n",
    "a zip archive": archive(),
    "packed by gzip": gzip.compress(PROSE.encode()),
    "a PDF": b"%PDF-1.4\n%more\n",
    "UTF-16": PROSE.encode("utf-16"),
    "HTML": b"<!DOCTYPE html>\n<html><body>The plot is good.</body></html>",
    "a Wikipedia dump": b'<mediawiki xmlns="x">\n<page>',
    "XML": b'<?xml version="1.0"?>\n<doc>The plot is good.</doc>',
    "a zero byte at 3": b"The\0plot",
    "an SQLite database": b"SQLite format 3\0more",
}


@pytest.mark.parametrize("said", OTHERS)
def test_what_is_plainly_of_another_format(said: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(OTHERS[said])
    if said.endswith("|raw"):
        assert detect(tmp_path / "a.txt") == "raw"
        return
    with pytest.raises(UserError) as caught:
        detect(tmp_path / "a.txt")
    assert said in caught.value.cause
    assert caught.value.cause.startswith(str(tmp_path / "a.txt"))
    assert caught.value.cure


@pytest.mark.parametrize("made", [table, array])
def test_shards_are_no_prose(made: object, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(made(tmp_path))  # type: ignore[operator]
    with pytest.raises(UserError, match=r"is an? (Parquet|HDF5) file"):
        detect(tmp_path / "a.txt")


PROSE_ALL_THE_SAME = [
    "{stub} This is prose.\n", "[1] This is a note.\n[2] And another.\n", "\tIndented.\n\tIn every line.\n\tThree.\n",
    "One, two and three.\nFour, five and six.\nSeven, eight and nine.\n",
    "a,b", "<3 is no tag.\n", '{"quoted"} text.\n',
    "[\"A title\"]\nis prose.\n", "Dear all,\nyours,\nme,\n",
]  # fmt: skip


@pytest.mark.parametrize("text", PROSE_ALL_THE_SAME)
def test_prose_with_odd_signs_stays_prose(text: str) -> None:
    assert form_of(text.encode(), Path("a"), cut=False) in ("raw", "sentences")


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_have_a_form_or_a_name(head: bytes, cut: bool) -> None:
    try:
        assert form_of(head, Path("a"), cut) in ("raw", "sentences", "wiki", "jsonl")
    except UserError as error:
        assert error.cause.startswith("a: ")  # noqa: PT017 - both are right


def test_a_line_without_text_names_its_keys(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "One."}\n{"content": "Two.", "id": 3}\n')
    with pytest.raises(UserError, match=r"a\.jsonl: line 2 .*; it has 'content', 'id'"):
        list(documents(path, detect(path), 0, -1, Notes()))
    path.write_text('{"text": "half \\ud83d"}\n')
    with pytest.raises(UserError, match="half of a surrogate pair"):
        list(documents(path, detect(path), 0, -1, Notes()))


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a named pipe, not a file"):
        find_sources([tmp_path / "pipe"], "raw")
    with pytest.raises(UserError, match="holds a NUL"):
        find_sources([Path("a\0b")], "raw")


@pytest.mark.parametrize("note", [b"{", b"[]", b'{"vocabulary": 5}', b"\xff", b"[" * 100_000])
def test_damaged_notes_of_unfinished_work(note: bytes, tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    (tmp_path / ".unfinished" / "work.json").write_bytes(note)
    with pytest.raises(UserError, match=r"work\.json: ?"):
        load_work(tmp_path)


# Names of special tokens in a text


NAMES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = (*NAMES, "the", "plot", "mask", "sep", "cls", "pad", "un", "##k", "[", "]", ".", "é")


@pytest.mark.parametrize("casing", [True, False])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("around", ["{}", "the{}plot", "é{}", "{}."])
def test_names_of_special_tokens_are_text(name: str, around: str, casing: bool) -> None:
    """ASCII words are matched by us, others by the library: neither knows special tokens."""
    (found,) = WordCache(Vocabulary(Path("v"), PIECES, casing)).encode([around.format(name)])
    pieces = [PIECES[id] for id in np.frombuffer(found, np.uint16)]
    assert not {*pieces} & {"[PAD]", "[CLS]", "[SEP]", "[MASK]"}
    place = pieces.index("[")
    inside = pieces[place + 1 : pieces.index("]")]
    assert inside == ([name[1:-1].lower()] if name != "[UNK]" else ["un", "##k"]) if casing else inside == ["[UNK]"]


def test_a_corpus_with_such_names_holds_no_such_tokens(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the [SEP] [MASK] plot [CLS].\nthe plot [PAD] [UNK].\n\nthe plot.\nthe plot.\n")
    sources = (CorpusFile(tmp_path / "a.txt", "a.txt", 1, "sentences"),)
    words = WordCache(Vocabulary(Path("v"), PIECES, True))
    (block,) = blocks(plan(sources)[0], sources, words, 60, Counts(), Notes())
    assert not np.isin(block.tokens, [0, 1, 2, 3, 4]).any()
