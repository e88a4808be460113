"""What goes to the model hub, and what does not; the hub itself is a stand-in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bertkit.comparison.report.hub_readme import files_of_model, hub_readme
from bertkit.errors import UserError
from bertkit.files import hub
from bertkit.records.files import write
from made_records import record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "stars"
    folder.mkdir()
    for name in ("model.safetensors", "vocab.txt", "log.jsonl"):
        (folder / name).write_text("x")
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertForSequenceClassification"]}))
    made = record()
    made["config"] |= {"data.train_file": "/home/me/secret.csv", "train.epochs": 2.0}
    made["config_sources"] = {"data.train_file": "option", "train.epochs": "option"}
    write(folder / "record.json", made)
    details = {"intervals": {"accuracy": [0.7, 0.9]}}
    (folder / "scores.json").write_text(json.dumps({"parts": [details]}))
    return folder


def test_the_readme_has_scores_and_no_places(run: Path) -> None:
    text = hub_readme(run, "me/stars", "apache-2.0")
    head, body = text.split("\n---\n", 1)
    values = {line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in head.splitlines()[1:]}
    assert (values["license"], values["pipeline_tag"]) == ("apache-2.0", "text-classification")
    assert values["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.8
    assert "| accuracy | 0.8000 | 0.700 to 0.900 |" in body
    assert "`train.epochs`" in body
    assert "secret" not in text
    assert str(run.parent) not in text


def test_the_models_files_alone_are_uploaded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_client: Any = pytest.importorskip("huggingface_hub")
    seen: dict[str, Any] = {}

    class Api:
        def __init__(self, endpoint: str) -> None:
            seen["endpoint"] = endpoint

        def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
            seen["repository"] = (name, private, exist_ok)

        def create_commit(self, name: str, operations: list[Any], commit_message: str) -> None:
            seen["files"] = {one.path_in_repo: one.path_or_fileobj for one in operations}

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example")
    monkeypatch.setattr(hub_client, "HfApi", Api)
    where = hub.upload("me/stars", files_of_model(run), {"README.md": b"text"}, True, "message")
    assert where == "https://hub.example/me/stars"
    assert seen["repository"] == ("me/stars", True, True)
    assert set(seen["files"]) == {"config.json", "model.safetensors", "vocab.txt", "README.md"}

    def refused(self: Api, name: str, private: bool, exist_ok: bool) -> None:
        raise RuntimeError("401 Client Error\nmore")

    monkeypatch.setattr(Api, "create_repo", refused)
    with pytest.raises(UserError, match="did not take me/stars: 401 Client Error"):
        hub.upload("me/stars", files_of_model(run), {}, True, "message")


def test_a_folder_without_weights_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        files_of_model(tmp_path)
