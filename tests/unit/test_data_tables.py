"""Tables of every format: the same rows come out, and what is wrong is named with its place."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bertkit.data.tables.in_memory import kept
from bertkit.data.tables.opening import digest_of, open_table
from bertkit.data.tables.table import TableOptions
from bertkit.errors import UserError

ROWS = [
    {"text": 'He said "hi",\nthen left; at once', "label": "good"},
    {"text": "plain | text", "label": "bad"},
    {"text": "tab\tin it", "label": "good"},
    {"text": "ünïcode 中文 \u2028 separator", "label": "bad"},
]


def cells(path: Path, **options: Any) -> list[dict[str, Any]]:
    return [dict(row.cells) for row in open_table(path, TableOptions(**options)).rows()]


def as_csv(rows: list[dict[str, str]], delimiter: str = ",", header: bool = True) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt"])
def test_a_delimiter_is_told_by_the_rows(tmp_path: Path, delimiter: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(as_csv(ROWS, delimiter).encode())
    assert cells(path) == ROWS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_an_encoding_is_told_or_guessed_and_said(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncafé,1\n".encode(encoding))
    assert cells(path) == [{"text": "café", "label": "1"}]
    assert bool(open_table(path).guesses) == (encoding == "cp1252")


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_packed_file_is_read_as_it_is(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    path = tmp_path / f"a.csv{suffix}"
    path.write_bytes(pack(as_csv(ROWS).encode()))
    assert cells(path) == ROWS


def test_glues_single_quotes_are_letters(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('sentence\tlabel\n"opens and never closes\t1\n"both sides"\t0\n')
    assert [row["sentence"] for row in cells(path)] == ['"opens and never closes', '"both sides"']


def test_a_file_without_a_header_numbers_its_columns_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("fine film,good\nawful film,bad\nother film,good\n")
    table = open_table(path)
    assert table.columns == ("0", "1")
    assert "no header" in table.guesses[0]
    assert open_table(path, TableOptions(header=True)).columns == ("fine film", "good")


def json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def json_list(path: Path) -> None:
    path.write_text(json.dumps(ROWS, indent=1))


def json_data(path: Path) -> None:
    path.write_text(json.dumps({"version": 1, "data": ROWS}))


def json_columns(path: Path) -> None:
    path.write_text(json.dumps({name: [row[name] for row in ROWS] for name in ROWS[0]}))


@pytest.mark.parametrize("write", [json_lines, json_list, json_data, json_columns])
def test_json_in_its_forms(tmp_path: Path, write: Callable[[Path], None]) -> None:
    path = tmp_path / "a.json"
    write(path)
    assert cells(path) == ROWS


def arrow_table() -> Any:
    pa = pytest.importorskip("pyarrow")
    return pa.Table.from_pylist(ROWS)


def test_parquet_and_arrow(tmp_path: Path) -> None:
    table = arrow_table()
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(table, tmp_path / "a.parquet")
    with pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "c.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow", "c.arrow"):
        assert cells(tmp_path / name) == ROWS, name


def test_a_folder_that_datasets_saved(tmp_path: Path) -> None:
    """As `Dataset.save_to_disk` lays it out: Arrow streams, named in state.json; numbered classes in the info."""
    arrow_table()
    import pyarrow as pa

    table = pa.Table.from_pylist([{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    for number in range(2):
        with (
            pa.OSFile(str(tmp_path / f"data-0000{number}.arrow"), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table.slice(number, 1))
    files = [{"filename": f"data-0000{number}.arrow"} for number in range(2)]
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": files}))
    classes = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps({"features": classes}))
    found = open_table(tmp_path)
    assert [dict(row.cells) for row in found.rows()] == table.to_pylist()
    assert found.names == {"label": ("no", "yes")}
    assert digest_of(tmp_path) != digest_of(tmp_path / "data-00000.arrow")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(UserError, match=r"holds the splits train, test; name one of them"):
        open_table(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\ngood,1\nbad\n", "a.csv:3: has 1 cells, not 2"),
        ("a.csv", 'text,label\ngood,1\n"open,2\nx,3\n', "a.csv:3: a quote opens in this row and is never closed"),
        ("a.csv", 'text,label\ngood,1\n"a" b,2\n', "a.csv:3: "),
        ("a.csv", "text,text\na,b\n", "two columns are called 'text'"),
        ("a.csv", "", "is empty"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl:2"),
        ("a.jsonl", '{"text": "a"}\n[1]\n', "a.jsonl:2: is a list, not an object"),
        ("a.json", '{"text": "a",\n "label": "b"}', "neither rows nor a list a column"),
        ("a.json", "[]", "no rows"),
        ("a.json", "[1]", "row 1"),
        ("a.parquet", "PAR1 and no more", "no Parquet file"),
        ("a.arrow", "nothing", "no Arrow file"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, name: str, content: str, words: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        list(open_table(path, TableOptions(header=True if name == "a.csv" else None)).rows())
    assert words in str(caught.value)


def test_a_fault_far_down_is_found_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "some text,1\n" * 100_000 + "broken\n")
    table = open_table(path)
    with pytest.raises(UserError, match=r"a\.csv:100002: has 1 cells, not 2"):
        for _ in table.rows():
            pass


def test_bytes_that_are_no_text_name_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"text,label\n" + b"some text,1\n" * 50_000 + b"caf\xe9,2\n")
    with pytest.raises(UserError, match=r"is not utf-8 after line"):
        list(open_table(path).rows())


def test_a_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Review,stars\na,1\nb,2\n")
    table = open_table(path)
    assert table.column("review", "text") == "Review"
    with pytest.raises(UserError, match=r"has no column 'star' for the label; its columns: Review, stars; did"):
        table.column("star", "label")


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\x1f\ufeff"), max_size=20)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(TEXTS.filter(str.strip), st.sampled_from(["aa", "bb"])), min_size=3, max_size=12))
@pytest.mark.parametrize("delimiter", [",", ";"])
def test_whatever_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, delimiter: str, rows: list[tuple[str, str]]
) -> None:
    written = [{"text": text, "label": label} for text, label in rows]
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    path.write_bytes(as_csv(written, delimiter).encode("utf-8"))
    assert cells(path, delimiter=delimiter, header=True) == written


def test_rows_of_a_program_have_a_file_of_their_own(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    paths = {kept(data, tmp_path) for data in (ROWS, iter(ROWS), columns, pd.DataFrame(ROWS))}
    assert len(paths) == 1  # the same content is the same file
    assert cells(paths.pop()) == ROWS
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]
    for wrong in (7, "text", [1, 2], [], {"a": [1], "b": [1, 2]}):
        with pytest.raises(UserError):
            kept(wrong, tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".jsonl"]


def test_missing_numbers_of_a_frame_are_null(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"text": ["a", None], "score": [1.5, float("nan")], "n": pd.array([1, None], "Int64")})
    assert cells(kept(frame, tmp_path)) == [
        {"text": "a", "score": 1.5, "n": 1}, {"text": None, "score": None, "n": None},
    ]  # fmt: skip


def test_a_first_row_of_any_length_is_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "word " * 30_000}, {"text": "short"}]
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    assert cells(path) == rows


def test_several_files_are_one_table(tmp_path: Path) -> None:
    from bertkit.data.tables.opening import digest_of

    for name, rows in (("b-2.csv", "text,label\nthree,x\n"), ("b-1.csv", 'label,text\ny,"one\nmore"\nx,two\n')):
        (tmp_path / name).write_text(rows)
    found = open_table(tmp_path / "b-*.csv")
    assert [row.cells["text"] for row in found.rows()] == ["one\nmore", "two", "three"]
    assert [row.place.rpartition("/")[2] for row in found.rows()] == ["b-1.csv:2", "b-1.csv:4", "b-2.csv:2"]
    assert found.form.startswith("2 files, comma-delimited")
    before = digest_of(tmp_path / "b-*.csv")
    (tmp_path / "b-3.csv").write_text("text,label\nfour,x\n")
    assert digest_of(tmp_path / "b-*.csv") != before
    (tmp_path / "b-4.csv").write_text("text,other\nfour,x\n")
    with pytest.raises(UserError, match=r"b-4\.csv: has other columns than .*b-1\.csv: label, other"):
        open_table(tmp_path / "b-*.csv")
    with pytest.raises(UserError, match="matches no file"):
        open_table(tmp_path / "c-*.csv")
    (tmp_path / "d[1].csv").write_text("text,label\nfour,x\n")  # a file of that very name
    assert len(list(open_table(tmp_path / "d[1].csv").rows())) == 1
