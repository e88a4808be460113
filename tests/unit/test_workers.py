"""`data prepare` on the workers of a cluster: what a worker looks at first, and how Dask's are told of and followed."""

from __future__ import annotations

import functools
import json
import logging
import pickle
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bertkit.cli.main import main
from bertkit.console import Display
from bertkit.data.pretraining.prepare import progress, tasks
from bertkit.data.pretraining.prepare.run import prepare
from bertkit.data.pretraining.prepare.sources import find_sources
from bertkit.data.pretraining.prepare.tasks import WorkTask
from bertkit.data.pretraining.prepare.work import Settings, Work, plan_work
from bertkit.distributed.process_pool import Processes
from bertkit.distributed.workers import find_cluster
from bertkit.distributed.world import World
from bertkit.errors import UserError
from bertkit.model.tokenizer_files import read_vocabulary
from pretraining_files import write_vocabulary

QUIET = Display(quiet=True)
SETTINGS = Settings("hdf5", 32, "static", most_masked=5, seed=3, shards=3, duplicates=1)
ON_DASK = ("--cluster", "dask", "--address")


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        text = "\n\n".join(f"word{number} word{each} word9.\nword{each} word{number}." for each in range(40))
        (tmp_path / "corpus" / f"{number}.txt").write_text(text)
    vocabulary = read_vocabulary(write_vocabulary(tmp_path), "uncased")
    return plan_work(SETTINGS, vocabulary, find_sources([tmp_path / "corpus"], "sentences"), tmp_path / "out")


def step(work: Work, number: int) -> dict[str, Any]:
    return {"sources": [str(source.path) for source in work.sources], "number": number}


def elsewhere(work: Work) -> WorkTask:
    """A task as another process has it."""
    progress.open_desk(work, False, QUIET)
    found = pickle.loads(pickle.dumps(WorkTask(step, work)))  # noqa: S301
    assert isinstance(found, WorkTask)
    return found


# What a worker looks at before it does anything


def test_a_task_finds_its_work_in_another_folder(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    near = plan_work(SETTINGS, work.vocabulary, find_sources([Path("corpus")], "sentences"), Path("out"))
    task = elsewhere(near)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert task(7) == {"sources": [str(source.path) for source in work.sources], "number": 7}
    assert len(pickle.dumps(task)) < 2000


def test_a_worker_that_does_not_see_the_files_says_which(work: Work, tmp_path: Path) -> None:
    task, host = elsewhere(work), socket.gethostname()
    corpus = tmp_path / "corpus" / "1.txt"
    text = corpus.read_text()
    corpus.write_text(text + "more")
    share = "keep corpus, vocabulary and output folder where all hosts see them under the same paths"
    with pytest.raises(UserError) as raised:
        task(0)
    assert str(raised.value) == f"a worker on {host} does not see {corpus} of {len(text)} bytes; {share}"
    corpus.unlink()
    with pytest.raises(UserError, match=f"a worker on {host} does not see .*1.txt"):
        task(0)
    corpus.write_text(text)
    task(0)
    for change, words in (
        (lambda: (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\n"), "another vocabulary"),
        ((tmp_path / "vocab.txt").unlink, "cannot read the work: .*vocab.txt"),
        (lambda: (tmp_path / "out/.unfinished/key").write_text("other"), "does not see the work in .*out"),
        (lambda: shutil.rmtree(tmp_path / "out"), "does not see the work in .*out"),
    ):
        change()
        tasks._opened.cache_clear()
        with pytest.raises(UserError, match=f"a worker on {host} .*{words}"):
            task(0)


def test_a_worker_with_other_versions_is_refused(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    task = elsewhere(work)
    tasks._opened.cache_clear()
    real = dict(tasks.versions("tfrecord"))
    monkeypatch.setattr(tasks, "version", lambda package: "0.9" if package == "h5py" else real[package])
    with pytest.raises(UserError, match=r"has h5py 0.9 where the command has .*; install the same versions on all"):
        task(0)


def test_a_rank_that_does_not_see_the_first_ones_folder(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "FIRST_WAIT", 0.2)
    with pytest.raises(UserError, match=r"out: the first process's work is not seen on .*; keep corpus, vocabulary"):
        prepare(work, Processes(1), QUIET, world=World(1, 2))


# The command


@pytest.mark.parametrize(
    ("words", "env", "said"),
    [
        (("--cluster", "spark"), {}, "--cluster 'spark' is not known: there are dask"),
        (("--address", "tcp://a:1"), {}, "--address tcp://a:1 is of no cluster; name its kind, as --cluster dask"),
        ((*ON_DASK, "tcp://a:1", "--workers", "2"), {}, "--workers 2: the workers of a cluster are started there"),
        ((*ON_DASK, "tcp://a:1"), {"RANK": "0", "WORLD_SIZE": "2"}, "started 2 processes, and a cluster has workers"),
    ],
)
def test_options_that_contradict_one_another(
    words: tuple[str, ...],
    env: dict[str, str],
    said: str,
    work: Work,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (env | ({"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"} if env else {})).items():
        monkeypatch.setenv(name, value)
    refused(work, words, said, capsys)


def refused(work: Work, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    source, vocab = str(work.sources[0].path), str(work.vocabulary.path)
    with pytest.raises(SystemExit) as ended:
        main(["data", "prepare", source, "-o", str(work.out), "--vocab", vocab, *words])
    *_, last = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert said in last
    assert not work.out.exists()


def test_without_dask_its_cluster_says_what_to_install(
    work: Work, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bertkit_dask.client", None)
    refused(work, (*ON_DASK, "tcp://a:1"), "needs Dask's distributed", capsys)


# Dask


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    """A scheduler and its workers in this process, which are threads."""
    distributed = pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=2, threads_per_worker=2, **options) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield cluster


def test_dasks_workers_give_the_same_bytes(
    dask: Any, work: Work, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with find_cluster("dask").connect(dask.scheduler_address) as workers:
        assert workers.describe().startswith("Dask workers: 2, hosts: 1, scheduler: inproc://")
        prepare(work, workers, QUIET)
    assert "2 Dask workers have several threads and use one; start them with --nthreads 1" in caplog.text
    alone = plan_work(SETTINGS, work.vocabulary, work.sources, tmp_path / "alone")
    prepare(alone, Processes(1), QUIET)
    made, wanted = ({path.name: path.read_bytes() for path in each.out.iterdir()} for each in (work, alone))
    assert made == wanted
    assert len(made) == 5  # shards, manifest, vocabulary


def failing(number: int) -> dict[str, Any]:
    if number == 2:
        raise UserError("a.txt:3: is no text", "correct the file")
    return {"number": number}


def test_what_a_task_refuses_is_told_as_it_is(dask: Any) -> None:
    with (
        find_cluster("dask").connect(dask.scheduler_address) as workers,
        pytest.raises(UserError, match=r"^a.txt:3: is no text; correct the file$"),
    ):
        list(workers.run("n", failing, [1, 2, 3]))


def slow(folder: Path, number: int) -> dict[str, Any]:
    (folder / "seen").touch()
    while not (folder / "go").exists():
        time.sleep(0.02)
    return {}


def test_tasks_of_an_earlier_command_are_waited_for(
    dask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with find_cluster("dask").connect(dask.scheduler_address) as workers:
        caplog.clear()
        left = workers.run("work-a", functools.partial(slow, tmp_path), [1])
        (thread := threading.Thread(target=lambda: list(left), daemon=True)).start()
        while not (tmp_path / "seen").exists():
            time.sleep(0.02)
        workers.wait_idle("work-b")
        assert "earlier" not in caplog.text
        threading.Timer(0.3, (tmp_path / "go").touch).start()
        workers.wait_idle("work-a")
        assert (tmp_path / "go").exists()
        assert "waiting for tasks of an earlier command: 1" in caplog.text
        thread.join(30)


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("node1", "--address node1 cannot be reached: missing port number"),
        ("http://node1:80", "cannot be reached: unknown address scheme 'http'"),
        ("tls://127.0.0.1:8786", "is encrypted, and there are no certificates"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
    ],
)
def test_addresses_where_no_scheduler_is(
    address: str, said: str, work: Work, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    monkeypatch.setattr("bertkit_dask.client.CONNECT_S", 0.3)
    refused(work, (*ON_DASK, address), said, capsys)


def test_an_address_from_a_file_and_none_at_all(
    work: Work, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    monkeypatch.setattr("bertkit_dask.client.CONNECT_S", 0.3)
    refused(work, ("--cluster", "dask"), "no address of a Dask scheduler is given", capsys)
    (tmp_path / "s.json").write_text(json.dumps({"address": "tcp://127.0.0.1:9"}))
    refused(work, (*ON_DASK, str(tmp_path / "s.json")), "no Dask scheduler answers at tcp://127.0.0.1:9", capsys)


def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    monkeypatch.setattr("bertkit_dask.client.FIRST_WORKER_S", 0.2)
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
    with distributed.LocalCluster(n_workers=0, **options) as cluster:
        place = cluster.scheduler_address
        with (
            pytest.raises(UserError, match=r"has no workers; start some, as `dask worker inproc"),
            find_cluster("dask").connect(place),
        ):
            pass


def test_what_becomes_of_tasks_whose_workers_die(caplog: pytest.LogCaptureFixture) -> None:
    distributed = pytest.importorskip("distributed", reason="Dask's distributed is not installed")
    from bertkit_dask import client as module

    clock = [100.0]
    counts = iter([2, 3, 0, 0, 0])
    workers = module.DaskWorkers(SimpleNamespace(nthreads=lambda: [0] * next(counts)), "tcp://a:1", 3, 0.0)

    def later(seconds: float) -> None:
        clock[0] += seconds
        workers._check()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.time, "monotonic", lambda: clock[0])
        later(0)
        assert "1 of 3 Dask workers are gone; others do their tasks" in caplog.text
        later(1)  # too early to ask
        later(5)
        later(5)
        later(250)
        with pytest.raises(UserError, match="has had no workers for 300 s; what is finished is kept"):
            later(60)
    died = SimpleNamespace(status="error", exception=lambda: distributed.KilledWorker("k", None, 3))
    assert workers._result(died) is None
    module._check_kills(module.MOST_KILLS - 1)
    with pytest.raises(UserError, match="workers died each time, as for want of memory; give them more"):
        module._check_kills(module.MOST_KILLS)
    alien = SimpleNamespace(status="error", exception=lambda: ModuleNotFoundError("No module named 'bertkit_dask'"))
    with pytest.raises(UserError, match=r"cannot import bertkit: No module .*; install the same bertkit\[dask\]"):
        workers._result(alien)
