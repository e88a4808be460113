"""`bertkit push` through the command: nothing goes anywhere without being asked for."""

from __future__ import annotations

import json
from pathlib import Path

from bertkit.records.files import write
from conftest import Run, assert_one_line_error
from made_records import record


def test_nothing_is_uploaded_unasked(bertkit: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "model.safetensors").write_text("x")
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertForTokenClassification"]}))
    write(folder / "record.json", record())
    shown = bertkit("push", "run", "me/model", "--license", "mit", "--dry-run")
    assert 'pipeline_tag: "token-classification"' in shown.stdout
    assert "would upload to" in shown.stdout
    assert_one_line_error(bertkit("push", "run", "me/model", "--license", "mit"), "nothing is uploaded", "--yes")
    assert_one_line_error(bertkit("push", "run", "me/model", "--yes"), "licence is not named", "--license")
    assert_one_line_error(bertkit("push", "run", "model", "--license", "mit"), "no name of a repository", "ORG/NAME")
    assert_one_line_error(
        bertkit("push", "run", "me/model", "--license", "mit", "--yes"), "HF_HUB_OFFLINE forbids the network"
    )
