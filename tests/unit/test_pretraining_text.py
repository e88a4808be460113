"""Text files -> documents -> sentences -> word pieces, and the pieces that the work is cut into."""

from __future__ import annotations

import bz2
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.pretraining.prepare import sources as sources_module
from bertkit.data.pretraining.prepare import texts
from bertkit.data.pretraining.prepare.fast_wordpiece import WordCache
from bertkit.data.pretraining.prepare.sentences import split_sentences
from bertkit.data.pretraining.prepare.sources import detect, find_sources, plan
from bertkit.data.pretraining.prepare.texts import Notes, documents
from bertkit.errors import UserError
from bertkit.model.tokenizer import empty_tokenizer
from bertkit.model.tokenizer_files import read_vocabulary
from bertkit.model.vocabulary import Vocabulary
from pretraining_files import PIECES

DOCUMENTS = [["One sentence here.", "And a second one!"], ["Élan? Yes.", "“Quoted,” he said."], ["A third document."]]
WRITTEN = {
    "wiki": "".join(f'<doc id="{n}" title="T">\nTitle\n\n{" ".join(d)}\n</doc>\n\n' for n, d in enumerate(DOCUMENTS)),
    "jsonl": "".join(json.dumps({"text": "\n".join(document), "id": 3}) + "\n" for document in DOCUMENTS),
    "sentences": "\n\n".join("\n".join(document) for document in DOCUMENTS) + "\n",
}
SPLIT = [["One sentence here.", "And a second one!"], ["Élan?", "Yes.", "“Quoted,” he said."], ["A third document."]]


def read(path: Path, format: str | None = None) -> tuple[list[list[str]], Notes]:
    notes = Notes()
    found = [list(each) for each in documents(path, format or detect(path), 0, -1, notes)]  # type: ignore[arg-type]
    return found, notes


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".zst"])
def test_every_format_is_told_and_read(format: str, ending: str, tmp_path: Path) -> None:
    path, text = tmp_path / f"a{ending}", WRITTEN[format].encode()
    pack = {
        "": bytes,
        ".gz": gzip.compress,
        ".bz2": bz2.compress,
        ".zst": lambda data: pa.compress(data, "zstd", asbytes=True),
    }
    path.write_bytes(pack[ending](text))
    assert detect(path) == format
    assert read(path)[0] == (DOCUMENTS if format == "sentences" else SPLIT)


def test_a_raw_file_is_one_document_and_wrapped_lines_are_joined(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text(
        "CHAPTER I\r\n\r\nIt was a dark and\r\nstormy night. The rain\r\nfell.\r\n", newline=""
    )
    found, _ = read(tmp_path / "book.txt")
    assert found == [["CHAPTER I", "It was a dark and stormy night.", "The rain fell."]]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Dr. J. Smith met Mrs. Jones. They left.", ["Dr. J. Smith met Mrs. Jones.", "They left."]),
        ("The U.S. Army came, e.g. In May. So?", ["The U.S. Army came, e.g. In May.", "So?"]),
        ("See No. 5 and p. 7. No. It was.", ["See No. 5 and p. 7.", "No.", "It was."]),
        ('He said "Go!" Then (at last.) She … left.', ['He said "Go!"', "Then (at last.)", "She … left."]),
        ("It cost 3.5 million. 20 came.", ["It cost 3.5 million.", "20 came."]),
        ("这是一句。这是第二句！第三", ["这是一句。", "这是第二句！", "第三"]),
        ("  No   end  here ", ["No end here"]),
        ("", []),
    ],
)  # fmt: skip
def test_sentences(text: str, wanted: list[str]) -> None:
    assert list(split_sentences(text)) == wanted


@settings(deadline=None, max_examples=200)
@given(st.text(alphabet=st.sampled_from("ab AB.!?\"') 。\n\t1é"), max_size=60))
def test_splitting_loses_no_word(text: str) -> None:
    assert " ".join(split_sentences(text)).split() == text.replace("。", "。 ").split() or "。" in text
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


# Broken and huge input


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x7fELF\x02\0\0\0" * 9, "zero byte at 5"),
        (b"good text\nbad \xff\xfe here\n" * 3, "not UTF-8 at byte 14"),
        (b'<doc id="1">\nTitle\nText.\n', 'ends within <doc id="1">'),
        (b'<doc id="1">\nT\n</doc>\nstray\n', "'stray' stands outside"),
        (b'{"text": "a"}\n{"body": "b"}\n', "line 2"),
        (b'{"text": "a"}\n{"text": 3}\n', "line 2"),
    ],
)
def test_bad_text_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(data)
    with pytest.raises(UserError, match="bad: ") as caught:
        read(tmp_path / "bad")
    assert words in str(caught.value)


def test_a_packed_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    packed = gzip.compress(np.random.default_rng(0).integers(97, 122, 300_000).astype(np.uint8).tobytes())
    (tmp_path / "a.gz").write_bytes(packed[:100_000])
    with pytest.raises(UserError, match=r"a\.gz: cannot be read or unpacked"):
        read(tmp_path / "a.gz")


@pytest.mark.parametrize("gap", [b" ", b""])
def test_a_line_without_end_is_cut(gap: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BLOCK", 1000)
    monkeypatch.setattr(texts, "LONGEST_DOCUMENT", 3000)
    text = ("é" * 7).encode() + gap
    (tmp_path / "long").write_bytes(text * 900)
    found, notes = read(tmp_path / "long", "raw")
    assert "".join("".join(sentences) for sentences in found).replace(" ", "") == "é" * 6300
    assert notes.counts[texts.DIVIDED_LINES] > 5
    assert notes.counts[texts.DIVIDED_DOCUMENTS] >= 1
    assert set(notes.first.values()) == {"long"}
    assert max(len(sentence) for sentences in found for sentence in sentences) <= 2100


def test_a_line_of_json_cannot_be_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "BLOCK", 1000)
    monkeypatch.setattr(texts, "LONGEST_JSON", 20_000)
    (tmp_path / "a").write_text(json.dumps({"text": "word " * 3000}) + "\n")
    assert len(read(tmp_path / "a")[0]) == 1
    (tmp_path / "a").write_text('{"text": "b"}\n' + json.dumps({"text": "word " * 5000}) + "\n")
    with pytest.raises(UserError, match="the line at byte 14 has over"):
        read(tmp_path / "a")


# Pieces


@pytest.mark.parametrize("format", WRITTEN)
@pytest.mark.parametrize("size", [40, 150, 1000])
def test_pieces_hold_every_document_once(
    format: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources_module, "PIECE", size)
    (tmp_path / "b").write_text((WRITTEN[format] + "\n") * 20)
    (tmp_path / "a").write_text(WRITTEN[format])
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "empty").touch()
    found = find_sources([tmp_path], None)
    pieces = plan(found)
    assert [source.name for source in found] == ["a", "b"]
    assert len(pieces) > 1 or size == 1000
    read_from = [
        sentences
        for piece in pieces
        for part in piece
        for sentences in documents(found[part.source].path, found[part.source].format, part.start, part.stop, Notes())
    ]
    assert read_from == (DOCUMENTS if format == "sentences" else SPLIT) * 21


def test_no_text_at_all(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for place, words in ((tmp_path, "no text in it"), (tmp_path / "none", "no such file")):
        with pytest.raises(UserError, match=words):
            find_sources([place], None)


# Words


@pytest.fixture(scope="module", params=[True, False], ids=["uncased", "cased"])
def vocabulary(request: pytest.FixtureRequest) -> Vocabulary:
    letters = [chr(code) for code in range(33, 127)] + ["é", "ß", "中", "##é", "##中", "fi"]
    more = [f"##{chr(code)}" for code in range(48, 123)] + [
        "word",
        "ing",
        "##ing",
        "Up",
        "##UP",
        "un",
        "##aff",
        "##able",
    ]
    pieces = dict.fromkeys([*PIECES, *letters, *more])
    return Vocabulary(Path("vocab.txt"), tuple(pieces), request.param)


def ids_of(vocabulary: Vocabulary) -> dict[str, int]:
    return {piece: number for number, piece in enumerate(vocabulary.pieces)}


ODD = st.text(
    st.one_of(st.sampled_from("abcUPing.,-'[]#é"), st.characters(codec="utf-8", exclude_categories=["Cs"])), max_size=30
)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.one_of(ODD, st.sampled_from(["[MASK]", "[SEP]", "x" * 101, "unaffable", "wordingUP", "##ing"]))))
def test_words_have_the_librarys_ids(vocabulary: Vocabulary, words: list[str]) -> None:
    sentence = " ".join(" ".join(words).split())
    memory, library = WordCache(vocabulary), empty_tokenizer(vocabulary.lower_case, ids_of(vocabulary))
    for _ in range(2):  # new, and remembered
        (found,) = memory.encode([sentence])
        assert np.frombuffer(found, memory.dtype).tolist() == library.encode(sentence, add_special_tokens=False).ids


@pytest.mark.slow
@pytest.mark.parametrize("casing", ["cased", "uncased"])
def test_words_have_the_librarys_ids_over_a_real_corpus(casing: str, real_data: Path) -> None:
    vocabulary = read_vocabulary(real_data / "vocab" / f"bert-base-{casing}-vocab.txt")
    memory, library = WordCache(vocabulary), empty_tokenizer(vocabulary.lower_case, ids_of(vocabulary))
    for source in find_sources([real_data / "corpus"], None):
        for sentences in documents(source.path, source.format, 0, -1, Notes()):
            wanted = library.encode_batch_fast(sentences, add_special_tokens=False)
            for ids, encoding in zip(memory.encode(sentences), wanted, strict=True):
                assert np.frombuffer(ids, memory.dtype).tolist() == encoding.ids
