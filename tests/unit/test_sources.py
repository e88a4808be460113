"""The table of what can be downloaded, and comparing files with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bertkit.errors import UserError
from bertkit.files.downloads import File, find_sources, load_sources, verify
from bertkit.model.config import ARCHITECTURES
from bertkit.model.names import published
from publisher import CONTENT, MD5, SHA256

SMALL = [(layers, hidden) for layers in (2, 4, 6, 8, 10, 12) for hidden in (128, 256, 512, 768)]
WITHOUT_CHECKSUMS = {
    "bert-tiny-uncased", "bert-mini-uncased", "bert-small-uncased", "bert-medium-uncased",
    "bert-large-uncased-whole-word-masking", "bert-large-cased-whole-word-masking",
    *(f"bert_uncased_l-{layers}_h-{hidden}_a-{hidden // 64}" for layers, hidden in SMALL),
}  # fmt: skip


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
    assert sum(source.folder.startswith("checkpoints/") for source in table.values()) == 33
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
            # Either the download or all that is in it can be verified, where anybody published a checksum
            known = download.sha256 or all(file.sha256 or file.md5 for file in source.files)
            assert known or source.name in WITHOUT_CHECKSUMS, download
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


@pytest.mark.parametrize(("layers", "hidden"), SMALL)
def test_each_small_model_is_found_by_googles_name_and_has_its_size(layers: int, hidden: int) -> None:
    called = f"bert_uncased_L-{layers}_H-{hidden}_A-{hidden // 64}"
    (source,) = find_sources([called])
    assert published(called) == source
    assert source.hub == f"google/{called}"
    size = ARCHITECTURES[source.architecture]
    assert (size.num_hidden_layers, size.hidden_size, size.num_attention_heads) == (layers, hidden, hidden // 64)
    (download,) = source.downloads
    assert download.url.endswith(f"/2020_02_20/uncased_L-{layers}_H-{hidden}_A-{hidden // 64}.zip")


def test_the_models_of_2018_and_2020_that_share_an_archives_name_share_no_folder() -> None:
    old, new = find_sources(["base", "bert_uncased_L-12_H-768_A-12"])
    assert old.folder != new.folder
    assert published("uncased_L-12_H-768_A-12") == old


def test_an_unknown_name_gets_the_nearest() -> None:
    assert [source.name for source in find_sources(["RTE", "mrpc", "rte"])] == ["rte", "mrpc"]
    with pytest.raises(UserError, match=r"no data called 'SST-2'; did you mean sst2"):
        find_sources(["SST-2"])
