"""A published model by its name, in an empty folder: found or fetched once, gone on with, or named in one line.

Everything is served on loopback: tiny stand-ins under the published names.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from command import record, settings
from conftest import assert_one_line_error, command_env
from model_server import (
    GOOGLE,
    ModelServer,
    google_files,
    hub_files,
    mrpc_files,
    own_table,
    serving,
    squad_files,
    zipped,
)
from own_files import write_reviews
from pretraining_files import known_sequences, write_hdf5

Done = subprocess.CompletedProcess[str]
LARGE = "google-bert/bert-large-uncased"
ARCHIVE = f"{GOOGLE}/2018_10_18/uncased_L-24_H-1024_A-16.zip"
SHORT = ("-s", "32", "-b", "16", "-e", "1", "-d", "fp32", "--backend", "cpu")
MRPC = ("train", "-m", "large", "-t", "mrpc", *SHORT)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as made:
        made.files = mrpc_files()
        yield made


def environment(folder: Path, server: ModelServer | None, hub: bool = True) -> dict[str, str]:
    """Of a command in `folder` that reaches `server` alone; `hub`: whether the hub's package is installed."""
    url = server.url if server else "http://127.0.0.1:9"
    table = folder.parent / f"{folder.name}-sources.toml"
    table.write_text(own_table(server.files if server else mrpc_files()))
    env = command_env(folder) | {
        "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder.parent / f"{folder.name}-hub"), "BERTKIT_MIRROR": url,
        "HF_ENDPOINT": url, "BERTKIT_SOURCES": str(table),
    }  # fmt: skip
    if not hub:
        without = folder.parent / "without" / "huggingface_hub"
        without.mkdir(parents=True, exist_ok=True)
        (without / "__init__.py").write_text("raise ImportError('not installed')\n")
        env["PYTHONPATH"] = os.pathsep.join([str(without.parent), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return env


def bertkit(folder: Path, env: dict[str, str], *words: str) -> Done:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bertkit", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=240, check=False)


def begin(folder: Path, env: dict[str, str], *words: str) -> subprocess.Popen[str]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "bertkit", *words]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_large_on_mrpc_from_the_hub_is_fetched_once(server: ModelServer, tmp_path: Path) -> None:
    server.repositories[LARGE] = files = hub_files()
    home = tmp_path / "empty"
    env = environment(home, server)
    done = bertkit(home, env, *MRPC, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert f"model: {LARGE} is fetched from {server.url}" in done.stderr
    assert "Apache-2.0" in done.stderr
    assert "found in the data folder: data/checkpoints/bert-large-uncased" in done.stderr
    assert "fetched into data/glue/MRPC" in done.stderr
    assert "terms of use: Microsoft's" in done.stderr
    assert len(server.sent("/model.safetensors")) == 1
    assert not server.sent("pytorch_model.bin")  # weights in one form only
    assert not server.sent("README.md")
    made = record(home / "run")
    assert made["model"]["name"] == "large"
    weights = hashlib.sha256(files["model.safetensors"]).hexdigest()
    assert weights in str(made)
    server.answers.clear()
    again = bertkit(home, env, *MRPC, "-o", "again")
    assert again.returncode == 0, again.stderr
    assert not server.answers
    offline = bertkit(home, env, *MRPC, "-o", "third", "--offline")
    assert offline.returncode == 0, offline.stderr


@pytest.mark.slow
def test_large_on_mrpc_on_the_gaudi_standin_is_fetched_once(
    server: ModelServer, tmp_path: Path, gaudi_env: Callable[..., dict[str, str]]
) -> None:
    """The plain command, ended after two updates."""
    server.repositories[LARGE] = hub_files()
    home = tmp_path / "empty"
    env = environment(home, server)
    reached = ("HF_HUB_OFFLINE", "HF_HOME", "HF_ENDPOINT", "BERTKIT_MIRROR", "BERTKIT_SOURCES", "BERTKIT_CACHE")
    env = gaudi_env(lazy=True) | {name: env[name] for name in reached}
    words = ("train", "--backend", "gaudi", "-m", "large", "-t", "mrpc", *settings(train__steps=2))
    done = bertkit(home, env, *words, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert len(server.sent("/model.safetensors")) == 1
    assert len(server.sent("msr_paraphrase_train.txt")) == 1
    made = record(home / "run")
    assert (made["model"]["name"], made["backend"]["name"], made["updates"]) == ("large", "gaudi", 2)
    server.answers.clear()
    again = bertkit(home, env, *words, "-o", "again")
    assert again.returncode == 0, again.stderr
    assert not server.answers


@pytest.mark.slow
def test_without_the_hubs_package_it_is_googles_archive(server: ModelServer, tmp_path: Path) -> None:
    server.files[ARCHIVE] = zipped(google_files(), "uncased_L-24_H-1024_A-16")
    home = tmp_path / "empty"
    env = environment(home, server, hub=False)
    done = bertkit(home, env, *MRPC, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "bert-large-uncased is fetched into data/checkpoints/uncased_L-24_H-1024_A-16" in done.stderr
    assert "found in the data folder" in done.stderr
    assert f"downloads come from {server.url} (BERTKIT_MIRROR)" in done.stderr
    assert "(BERTKIT_SOURCES)" in done.stderr
    assert [one.path for one in server.sent(".zip")] == [ARCHIVE]
    left = {path.name for path in (home / "data" / "checkpoints").rglob("*")}
    assert left == {
        "uncased_L-24_H-1024_A-16", "bert_config.json", "bert_model.ckpt.index", "vocab.txt",
        "bert_model.ckpt.data-00000-of-00001", "bert_model.ckpt.meta",
        "fetched.json",
    }  # fmt: skip
    server.answers.clear()
    again = bertkit(home, env, *MRPC, "-o", "again", "--set", "model.start=pretrained")
    assert again.returncode == 0, again.stderr
    assert not server.answers


@pytest.mark.slow
def test_where_the_hub_fails_googles_archive_is_taken_with_a_warning(server: ModelServer, tmp_path: Path) -> None:
    server.files[ARCHIVE] = zipped(google_files())  # some archives have no folder in them
    home = tmp_path / "empty"
    done = bertkit(home, environment(home, server), *MRPC, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert f"warning: the model hub did not give {LARGE}" in done.stderr
    assert "found in the data folder" in done.stderr


@pytest.mark.slow
def test_base_on_squad(server: ModelServer, tmp_path: Path) -> None:
    server.repositories["google-bert/bert-base-uncased"] = hub_files()
    server.files |= squad_files(tmp_path)
    home = tmp_path / "empty"
    words = ("train", "-m", "base", "-t", "squad", *SHORT, "--set", "data.doc_stride=8", "-o", "run")
    done = bertkit(home, environment(home, server), *words)
    assert done.returncode == 0, done.stderr
    assert len(server.sent("train-v1.1.json")) == 1
    assert record(home / "run")["data"]["train"]["examples"] == 24


@pytest.mark.slow
@pytest.mark.parametrize("hub", [True, False])
def test_a_killed_download_is_gone_on_with(hub: bool, server: ModelServer, tmp_path: Path) -> None:
    server.repositories[LARGE] = hub_files(filling=6_000_000)
    server.files[ARCHIVE] = zipped(google_files() | {"more": bytes(6_000_000)}, "uncased_L-24_H-1024_A-16")
    ending = "/model.safetensors" if hub else ".zip"
    whole = server.repositories[LARGE]["model.safetensors"] if hub else server.files[ARCHIVE]
    home = tmp_path / "empty"
    env = environment(home, server, hub)
    server.pause = 0.02
    place = home / "data" / "checkpoints"
    with begin(home, env, *MRPC, "-o", "run") as process:
        end = time.monotonic() + 60
        while not any(part.stat().st_size > 500_000 for part in place.rglob("*.part")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    server.pause = 0.0
    done = bertkit(home, env, *MRPC, "-o", "run")
    assert done.returncode == 0, done.stderr
    end = time.monotonic() + 10
    while len(server.sent(ending)) < 2 and time.monotonic() < end:
        time.sleep(0.05)  # the answer that was broken off is noted when the server sees it
    second = max(server.sent(ending), key=lambda one: one.start)
    assert second.start >= 500_000, (done.stderr, server.answers)
    assert second.start + second.sent == len(whole)  # no more than what was missing
    assert not list(home.rglob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("hub", [True, False])
def test_two_at_once_fetch_once(hub: bool, server: ModelServer, tmp_path: Path) -> None:
    server.repositories[LARGE] = hub_files(filling=1_000_000)
    server.files[ARCHIVE] = zipped(google_files() | {"more": bytes(1_000_000)}, "uncased_L-24_H-1024_A-16")
    home = tmp_path / "empty"
    env = environment(home, server, hub)
    server.pause = 0.05
    both = [begin(home, env, *MRPC, "-o", f"run{number}") for number in range(2)]
    ends = [process.communicate(timeout=240) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert len(server.sent("/model.safetensors" if hub else ".zip")) == 1
    assert len(server.sent("msr_paraphrase_train.txt")) == 1
    assert (home / "run0" / "model.safetensors").read_bytes() == (home / "run1" / "model.safetensors").read_bytes()
    assert not list((home / "data").rglob("*.lock"))


@pytest.mark.slow
def test_ranks_fetch_once(server: ModelServer, tmp_path: Path) -> None:
    server.files[ARCHIVE] = zipped(google_files(), "uncased_L-24_H-1024_A-16")
    home = tmp_path / "empty"
    words = ("launch", "-n", "2", "--", *MRPC, "-o", "run")
    done = bertkit(home, environment(home, server, hub=False), *words)
    assert done.returncode == 0, done.stderr
    assert len(server.sent(".zip")) == 1
    assert len(server.sent("mrpc_dev_ids.tsv")) == 1


@pytest.mark.parametrize("how", ["option", "variable", "the hub's", "no server", "dry run"])
def test_without_a_network_one_line_names_the_commands_and_folders(how: str, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    env = environment(home, None)
    words = {"option": ("--offline",), "dry run": ("--dry-run",)}.get(how, ())
    env |= {"variable": {"BERTKIT_OFFLINE": "1"}, "the hub's": {"HF_HUB_OFFLINE": "1"}}.get(how, {})
    done = bertkit(home, env, *MRPC, *words)
    assert_one_line_error(
        done, "the model bert-large-uncased and the data of mrpc are not here", "`bertkit data get bert-large-uncased`",
        "`bertkit data get mrpc`", "data/checkpoints/uncased_L-24_H-1024_A-16", "data/glue/MRPC", "BERTKIT_MODELS",
    )  # fmt: skip
    assert not [path for path in home.rglob("*") if path.is_file()]


@pytest.mark.slow
def test_what_is_named_for_an_offline_machine_brings_it(server: ModelServer, tmp_path: Path) -> None:
    server.files[ARCHIVE] = zipped(google_files(), "uncased_L-24_H-1024_A-16")
    home = tmp_path / "empty"
    env = environment(home, server)
    for name in ("bert-large-uncased", "mrpc"):
        done = bertkit(home, env, "data", "get", name)
        assert done.returncode == 0, done.stderr
    done = bertkit(home, env, *MRPC, "--offline", "-o", "run")
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_folder_of_models_is_looked_in(server: ModelServer, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "bert-large-uncased"
    folder.mkdir(parents=True)
    for name, content in hub_files().items():
        (folder / name).write_bytes(content)
    home = tmp_path / "empty"
    env = environment(home, server) | {"BERTKIT_MODELS": str(folder.parent)}
    done = bertkit(home, env, *MRPC, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert f"large means bert-large-uncased, found in BERTKIT_MODELS: {folder}" in done.stderr
    assert "BERTKIT_MODELS is no setting" not in done.stderr


@pytest.mark.slow
def test_a_random_start_needs_the_vocabulary_alone(server: ModelServer, tmp_path: Path) -> None:
    server.repositories["google/bert_uncased_L-2_H-128_A-2"] = hub_files()
    home = tmp_path / "empty"
    words = ("train", "-m", "tiny", "-t", "mrpc", *SHORT, "--set", "model.start=random", "-o", "run")
    done = bertkit(home, environment(home, server), *words)
    assert done.returncode == 0, done.stderr
    assert "weights: tiny from a random start" in done.stderr
    assert "tiny means the vocabulary of bert-tiny-uncased, found in the data folder" in done.stderr
    assert server.sent("/vocab.txt")
    assert not server.sent("/model.safetensors")
    assert '"hidden_size": 128' in (home / "run" / "config.json").read_text()


@pytest.mark.slow
def test_pre_training_on_one_shard_fetches_its_model_beside_it(server: ModelServer, tmp_path: Path) -> None:
    """The data folder is then a file, in which no model can be put."""
    server.repositories[LARGE] = hub_files()
    home = tmp_path / "empty"
    (home / "shards").mkdir(parents=True)
    write_hdf5(home / "shards" / "part.hdf5", known_sequences(200))
    few = settings(train__steps=2)
    words = ("train", "-t", "pretrain", "-m", "bert-large-uncased", "--data-dir", "shards/part.hdf5", *SHORT, *few)
    env = environment(home, server)
    offline = bertkit(home, env, *words, "--offline")
    assert_one_line_error(offline, "`bertkit data get bert-large-uncased --data-dir shards`")
    done = bertkit(home, env, *words, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert "found in the data folder: shards/checkpoints/bert-large-uncased" in done.stderr
    assert record(home / "run")["updates"] == 2


def test_the_sample_task_starts_at_random_and_says_so(sample_dir: Path, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    words = ("train", "-m", "tiny", "-t", "sample", *SHORT, "--data-dir", str(sample_dir), "--dry-run")
    done = bertkit(home, environment(home, None), *words)
    assert done.returncode == 0, done.stderr
    assert "tiny starts at random, since task sample has a vocabulary of its own" in done.stderr
    done = bertkit(home, environment(home, None), *words, "--set", "model.start=pretrained")
    assert_one_line_error(done, "the model bert-tiny-uncased is not here")


@pytest.mark.parametrize("name", ["large", "bert-large-uncased", LARGE])
@pytest.mark.parametrize("command", ["predict", "evaluate", "ask"])
def test_a_published_model_answers_nothing(command: str, name: str, server: ModelServer, tmp_path: Path) -> None:
    home = tmp_path / "empty"
    task = "squad" if command == "ask" else "mrpc"
    done = bertkit(home, environment(home, server), command, name, "-t", task, "--backend", "cpu")
    assert_one_line_error(done, "trained", "give the folder of a run")
    assert not server.answers


@pytest.mark.slow
def test_evaluate_fetches_its_data(server: ModelServer, tmp_path: Path) -> None:
    server.repositories[LARGE] = hub_files()
    home = tmp_path / "empty"
    env = environment(home, server)
    assert bertkit(home, env, *MRPC, "-o", "../run").returncode == 0
    other = tmp_path / "other"
    done = bertkit(other, env, "evaluate", "../run", "--backend", "cpu")
    assert done.returncode == 0, done.stderr
    assert (other / "data" / "glue" / "MRPC" / "dev_ids.tsv").exists()
    offline = bertkit(tmp_path / "third", env, "evaluate", "../run", "--backend", "cpu", "--offline")
    assert_one_line_error(offline, "the data of mrpc is not here", "`bertkit data get mrpc` fetches it")


def test_a_table_of_sources_of_ones_own_that_is_damaged_is_named(tmp_path: Path) -> None:
    home = tmp_path / "empty"
    env = environment(home, None)
    for text, said in (
        ("[mrpc\n", "is not TOML"),
        ("[mrpc]\ntitle = 3\n", "entry 'mrpc' is not like those"),
        (
            '[x]\ntitle=""\nterms=""\nhomepage=""\nfolder="../../etc"\ndownloads=[]\nfiles=[]\n',
            "not below the data folder",
        ),
        ("mrpc = 3\n", "entry 'mrpc' is not like those"),
    ):
        Path(env["BERTKIT_SOURCES"]).write_text(text)
        assert_one_line_error(bertkit(home, env, "data", "list"), said, "correct BERTKIT_SOURCES")


def test_a_table_of_the_hub_is_fetched_once_and_read(server: ModelServer, tmp_path: Path, sample_dir: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", sample_dir)
    write_reviews(tmp_path / "dev.csv", sample_dir, 40)
    train, dev = ((tmp_path / name).read_bytes() for name in ("reviews.csv", "dev.csv"))
    server.repositories["datasets/me/reviews"] = {
        "de/train.csv": train, "de/validation.csv": dev, "fr/train.csv": b"x", "README.md": b"# Reviews",
    }  # fmt: skip
    env = environment(tmp_path / "home", server)
    name = "hf://datasets/me/reviews/de"
    words = ("--train", name, "--dev", name, "-m", "tiny", "--set", "model.start=random", "--backend", "null")
    words += ("--set", f"model.vocab={sample_dir / 'sample' / 'vocab.txt'}", "--dry-run", "-o", "run")
    done = bertkit(tmp_path / "home", env, "train", *words)
    assert done.returncode == 0, done.stderr
    assert "text in column review, label in stars" in done.stderr
    assert [len(server.sent(f"{split}.csv")) for split in ("de/train", "de/validation", "fr/train")] == [1, 1, 0]
    server.answers.clear()
    again = bertkit(tmp_path / "home", env, "train", *words, "--offline")
    assert again.returncode == 0, again.stderr
    assert not server.answers
    several = bertkit(tmp_path / "home", env, "data", "look", "hf://datasets/me/reviews")
    assert_one_line_error(several, "several tables for train", "de/train.csv, fr/train.csv")
    unknown = bertkit(tmp_path / "home", env, "data", "look", "hf://datasets/me/others")
    assert_one_line_error(unknown, "did not give me/others", "check the name and the network")
