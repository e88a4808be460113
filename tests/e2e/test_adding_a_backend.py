"""The example backend as others write theirs: installed from outside the tree, checked, trained, and broken."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bertkit.conformance.fixtures import job
from bertkit.distributed.world import World
from bertkit.errors import UserError
from command import settings
from conftest import ROOT, Run, command_env
from examples_outside import assert_page_shows, install, run_own_tests

EXAMPLE = ROOT / "examples" / "bertkit_sample_chip"
PAGE = ROOT / "docs" / "adding-a-backend.md"
MASK = ".masked_fill(~seen, torch.finfo(query.dtype).min)"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(EXAMPLE, tmp_path_factory.mktemp("outside"))


@pytest.fixture
def broken(site: Path, tmp_path: Path) -> Path:
    """Such a folder whose attention ignores its mask."""
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    device = copy / "bertkit_sample_chip" / "device.py"
    text = device.read_text(encoding="utf-8")
    assert text.count(MASK) == 1
    device.write_text(text.replace(MASK, ""), encoding="utf-8")
    return copy


def checked(bertkit: Run, site: Path) -> tuple[int, dict[str, tuple[str, str]]]:
    """The exit code of `bertkit check sample-chip`, and of each check its outcome and what it said."""
    done = bertkit("check", "sample-chip", "--json", PYTHONPATH=str(site))
    assert done.stdout, done.stderr
    return done.returncode, {one["name"]: (one["outcome"], one["detail"]) for one in json.loads(done.stdout)["results"]}


def test_what_is_installed_is_the_package_alone(site: Path) -> None:
    files = {path.name for path in (site / "bertkit_sample_chip").iterdir()} - {"__pycache__"}
    assert files == {"__init__.py", "device.py", "py.typed"}
    assert {path.name.split("-")[0] for path in site.iterdir()} == {"bertkit_sample_chip"}


@pytest.mark.slow
def test_it_is_listed_without_importing_a_framework(site: Path, bertkit: Run, tmp_path: Path) -> None:
    listed = bertkit("backends", PYTHONPATH=str(site))
    assert "sample-chip: ready: one sample chip, torch" in listed.stdout, listed.stderr
    assert (
        "sample-chip: not ready: no sample chip"
        in bertkit("backends", PYTHONPATH=str(site), SAMPLE_CHIP="absent").stdout
    )
    assert "sample-chip" not in bertkit("backends").stdout
    looks = "import sys, bertkit_sample_chip as b; b.SampleChipBackend().probe(); sys.exit('torch' in sys.modules)"
    env = command_env(tmp_path) | {"PYTHONPATH": str(site)}
    assert subprocess.run([sys.executable, "-c", looks], env=env, check=False).returncode == 0


def test_it_keeps_the_contract(site: Path, bertkit: Run) -> None:
    code, results = checked(bertkit, site)
    failed = {name: said for name, said in results.items() if said[0] not in ("passed", "skipped")}
    assert (code, failed) == (0, {})
    # These are about what the chip does not have. Whatever else is skipped was not looked at.
    skipped = {name for name, (outcome, _) in results.items() if outcome == "skipped"}
    assert skipped <= {"loss_scaling", "host_waits", "memory", "teacher_logits", "teacher_states", "teacher_words"}


@pytest.mark.slow
def test_a_fault_in_its_attention_is_found(broken: Path, bertkit: Run) -> None:
    code, results = checked(bertkit, broken)
    assert code == 1
    assert results["reference"][0] == results["layouts"][0] == "failed", results
    assert "logits differ" in results["reference"][1]


@pytest.mark.slow
def test_it_trains(site: Path, bertkit: Run, sample_dir: Path, tmp_path: Path) -> None:
    words = ("train", "--backend", "sample-chip", "-t", "sample", "-m", "tiny", "-s", "48", "-d", "fp32", "-b", "16")
    short = settings(data__train_rows=64, data__eval_rows=50, device__tile=16, device__shapes=2)
    done = bertkit(*words, "--data-dir", sample_dir, "-e", "1", "-o", "run", *short, PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "record.json").read_text(encoding="utf-8"))
    assert record["config"]["backend"] == "sample-chip"
    engine = record["hardware"]["engine"]
    assert (engine["tile"], engine["attention"]) == ("16 keys", "tiles of keys")
    assert engine["layout"].startswith("packed rows")
    assert set(record["metrics"]) == {"accuracy", "f1"}


def test_a_setting_that_cannot_be_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    from bertkit_sample_chip import SampleChipBackend

    wanted = dataclasses.replace(job("classification"), settings={"tile": 0, "shapes": 4})
    with pytest.raises(UserError, match=r"device\.tile = 0"):
        SampleChipBackend().engine(wanted, World())


@pytest.mark.slow  # the checks a second time, as the example's own pytest runs them
def test_its_own_tests_pass_in_its_own_folder(site: Path, tmp_path: Path) -> None:
    run_own_tests(EXAMPLE / "test_contract.py", site, tmp_path)


# ---- the page ----


def test_the_pages_blocks_are_the_examples_files() -> None:
    assert_page_shows(PAGE, EXAMPLE)


def test_the_pages_table_has_every_part_of_a_device() -> None:
    source = ast.parse((ROOT / "backends" / "bertkit_torch" / "device.py").read_text(encoding="utf-8"))
    (device,) = (node for node in source.body if isinstance(node, ast.ClassDef) and node.name == "Device")
    parts = {node.name for node in device.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    for node in device.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts |= {target.id for target in targets if isinstance(target, ast.Name)}
    table = PAGE.read_text(encoding="utf-8").split("| of `Device` |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(parts)
