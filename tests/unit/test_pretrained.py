"""Where a model comes from, and that vocabulary, config and weights belong together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bertkit.data.tasks import find_task
from bertkit.errors import UserError
from bertkit.files.disk import write_arrays
from bertkit.model.config import ARCHITECTURES, Head, ModelConfig
from bertkit.model.loading import find_source, model_folder, starting_weights
from bertkit.model.parameters import initial
from bertkit.model.vocabulary import SPECIAL
from bertkit.recipes.resolve import resolve
from bertkit.training.supply import Start, supply
from conftest import command_env

HEAD = Head("classification", 2)
SIZES = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def vocab(path: Path, pieces: int) -> Path:
    path.write_text("\n".join([*SPECIAL, *(f"word{n}" for n in range(pieces - len(SPECIAL)))]) + "\n")
    return path


def model(folder: Path, pieces: int, rows: int, config_name: str = "config.json", **config: Any) -> Path:
    """A model's folder without weights."""
    folder.mkdir(exist_ok=True)
    vocab(folder / "vocab.txt", pieces)
    (folder / config_name).write_text(json.dumps(SIZES | {"vocab_size": rows} | config))
    return folder


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_a_bare_size_takes_the_vocabularys_rows(name: str, tmp_path: Path) -> None:
    source = find_source(name, str(vocab(tmp_path / "vocab.txt", 30)))
    assert (source.folder, source.config.vocab_size) == (None, 30)
    assert source.config.hidden_size == ARCHITECTURES[name].hidden_size


def test_a_bare_size_needs_a_vocabulary(tmp_path: Path) -> None:
    for task_vocab in (None, tmp_path / "absent.txt"):
        with pytest.raises(UserError, match=r"'tiny' is a size without weights.*model\.vocab="):
            find_source("tiny", task_vocab=task_vocab)


@pytest.mark.parametrize("name", ["4l-288d", "4l-312d", "6l-768d"])
def test_a_size_that_nobody_published_starts_at_random_and_says_so(name: str, tmp_path: Path) -> None:
    task, said = find_task("sst2"), list[str]()
    recipe = resolve({"model.name": name, "model.vocab": "v.txt", "data.dir": str(tmp_path)}).recipe
    assert supply(recipe, task, said.append) == Start(name, "v.txt", "auto", True)
    other = "; of its size there is bert_uncased_l-6_h-768_a-12" if name == "6l-768d" else ""
    assert said == [f"warning: model {name} starts at random, since no pre-trained model is called so{other}"]
    with pytest.raises(UserError, match=f"no pre-trained model is called {name}"):
        supply(resolve({"model.name": name, "model.start": "pretrained"}).recipe, task, said.append)


def test_the_tasks_vocabulary_serves_a_bare_size_unless_one_is_given(tmp_path: Path) -> None:
    task, own = vocab(tmp_path / "task.txt", 20), vocab(tmp_path / "own.txt", 25)
    assert find_source("tiny", task_vocab=task).config.vocab_size == 20
    assert find_source("tiny", str(own), task_vocab=task).config.vocab_size == 25
    with pytest.raises(UserError, match="no vocabulary"):
        find_source("tiny", str(tmp_path / "absent.txt"), task_vocab=task)


def test_a_bare_size_starts_from_the_seed(tmp_path: Path) -> None:
    source = find_source("tiny", str(vocab(tmp_path / "vocab.txt", 20)))
    fit = starting_weights(source, HEAD, 3)
    assert (fit.missing, fit.unexpected, fit.reshaped, fit.digest) == ((), (), (), None)
    wanted = initial(source.config, HEAD, 3)
    assert all(np.array_equal(fit.weights[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(("pieces", "rows"), [(20, 20), (20, 24), (20, 27), (20, 28), (20, 1020), (30522, 30528)])
def test_a_vocabulary_that_fits_is_taken(pieces: int, rows: int, tmp_path: Path) -> None:
    source = find_source(str(model(tmp_path / "m", pieces, rows)))
    assert source.config.vocab_size == rows
    assert len(source.vocabulary.pieces) == pieces
    more = f"has {rows - pieces:,} more embeddings than "
    assert [more in said for said in source.warnings] == ([True] if rows > pieces else [])
    assert source.folder == tmp_path / "m"


@pytest.mark.parametrize(("pieces", "rows"), [(21, 20), (30522, 28996), (28996, 30522)])
def test_a_vocabulary_of_another_model_is_refused(pieces: int, rows: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"has {pieces} word pieces but .* has {rows} embeddings"):
        find_source(str(model(tmp_path / "m", pieces, rows)))


def test_a_vocabulary_that_is_given_beats_the_models_own(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 20, 20)
    own = vocab(tmp_path / "own.txt", 19)
    assert find_source(str(folder), str(own)).vocabulary.path == own


def test_weights_are_read_and_their_digest_is_kept(tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 20, 20)
    given = initial(ModelConfig(8, 1, 2, 16, vocab_size=20), HEAD, 9)
    write_arrays(folder / "model.safetensors", given, {})
    fit = starting_weights(find_source(str(folder)), HEAD, 1)
    assert (fit.missing, fit.unexpected) == ((), ())
    assert len(fit.digest or "") == 64
    assert all(np.array_equal(fit.weights[name], given[name]) for name in given)


@pytest.mark.parametrize("kind", ["classification", "pretraining"])
def test_padded_rows_are_taken_where_only_the_weights_have_them(kind: Any, tmp_path: Path) -> None:
    """A checkpoint as published: bert_config.json says 20, the training script padded the rows to 24."""
    folder, head = model(tmp_path / "m", 20, 20, "bert_config.json"), Head(kind, 2)
    given = initial(ModelConfig(8, 1, 2, 16, vocab_size=24), head, 9)
    write_arrays(folder / "model.safetensors", given, {})
    source = find_source(str(folder))
    fit = starting_weights(source, head, 1)
    name = "bert.embeddings.word_embeddings.weight"
    assert np.array_equal(fit.weights[name][:20], given[name][:20])


def test_a_path_to_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.txt").write_bytes(b"words")
    with pytest.raises(UserError, match="is a file, not a model's folder"):
        find_source(str(tmp_path / "model.txt"))


@pytest.mark.parametrize("name", ["/no/such/folder", "./absent", "../absent", "~/absent-model", "a/b/c"])
def test_a_missing_folder_is_named_without_asking_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError) as caught:
        model_folder(name)
    assert caught.value.cause == f"the model folder {name} does not exist"


def test_without_the_hubs_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"no size 'bsae'; did you mean .*bertkit\[hub\]"):
        model_folder("bsae")


def test_what_the_hub_raises_becomes_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub, utils = ModuleType("huggingface_hub"), ModuleType("huggingface_hub.utils")
    asked: list[str] = []
    files = [
        "model.safetensors",
        "pytorch_model.bin",
        "config.json",
        "vocab.txt",
        "README.md",
        "onnx/model.safetensors",
    ]

    class HfApi:
        def __init__(self, endpoint: str) -> None:
            assert endpoint == "https://huggingface.co"

        def model_info(self, name: str, files_metadata: bool, timeout: float) -> SimpleNamespace:
            if name != "org/there":
                raise ConnectionError("a long\nstory")
            return SimpleNamespace(sha="0" * 40, siblings=[SimpleNamespace(rfilename=file, size=1) for file in files])

    def snapshot_download(name: str, allow_patterns: list[str], repo_type: str, revision: str | None) -> str:
        assert (repo_type, revision) == ("model", None)
        asked.extend([name, *allow_patterns])
        return str(tmp_path)

    hub.snapshot_download, hub.HfApi = snapshot_download, HfApi  # type: ignore[attr-defined]
    utils.disable_progress_bars = lambda: None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.utils", utils)
    for variable in ("HF_HUB_OFFLINE", "HF_ENDPOINT", "BERTKIT_MIRROR"):
        monkeypatch.delenv(variable, raising=False)
    assert model_folder("org/there") == tmp_path
    assert asked == ["org/there", "config.json", "model.safetensors", "vocab.txt"]  # weights in one form only
    with pytest.raises(UserError, match=r"and the model hub did not give org/name: ConnectionError") as caught:
        model_folder("org/name")
    assert "\n" not in str(caught.value)


def test_an_unknown_name_offline_is_a_users_error(tmp_path: Path) -> None:
    program = "from bertkit.model.loading import model_folder\nmodel_folder('no-such-org/no-such-model')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=command_env(tmp_path) | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr.splitlines()[-1].startswith(
        "bertkit.errors.UserError: there is no folder and no size 'no-such-org"
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hidden_size": None}, "hidden_size"),
        ({"model_type": "roberta"}, "model_type is 'roberta', not 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_size": "8"}, "hidden_size is '8', not a whole number"),
        ({"num_attention_heads": 3}, "not a multiple"),
        ({"num_attention_heads": 0}, "num_attention_heads"),
        ({"hidden_act": "silu"}, "hidden_act 'silu' is not known"),
    ],
)
def test_a_config_that_is_not_a_berts_is_refused(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        find_source(str(model(tmp_path / "m", 20, 20, **config)))
    assert words in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "{}", '{"model_type": "bert"}'])
def test_a_config_without_sizes_is_refused_by_its_path(content: str, tmp_path: Path) -> None:
    folder = model(tmp_path / "m", 20, 20)
    (folder / "config.json").write_text(content)
    with pytest.raises(UserError) as caught:
        find_source(str(folder))
    assert str(folder / "config.json") in caught.value.cause


def test_a_folder_without_config_or_vocabulary_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vocab\.txt: no vocabulary"):
        find_source(str(tmp_path))
    vocab(tmp_path / "vocab.txt", 20)
    with pytest.raises(UserError, match=r"holds no config\.json"):
        find_source(str(tmp_path))


def test_casing_that_does_not_fit_is_warned_about(tmp_path: Path) -> None:
    folder = str(model(tmp_path / "m", 20, 20))
    assert find_source(folder).warnings == ()
    assert "casing=uncased" in find_source(folder, casing="cased").warnings[0]
