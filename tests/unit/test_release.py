"""What a release is made of: its page of figures, its checks, and the forms that users fill in."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from bertkit.cli.inner import check
from bertkit.cli.main import app
from bertkit.version import __version__
from conftest import ROOT

TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
FORMS = [path for path in TEMPLATES if path.name != "config.yml"]


# ---- the page of figures ----


def test_the_page_of_figures_is_what_the_script_makes(script: Any) -> None:
    made = script("page").page()
    assert made == (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), "run python benchmarks/page.py"
    assert not re.search(r"(?<![\w.])/(home|root|tmp|work|data)\b", made)  # records of a run with paths of a machine


def test_a_figure_of_the_page_is_the_records(script: Any, tmp_path: Path) -> None:
    page, folder = script("page"), ROOT / "docs" / "records" / "frameworks"
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "cpu-fp32.json"
    (record,) = json.loads(file.read_text(encoding="utf-8"))["records"]
    rate = record["throughput"]["sequences_per_second"]
    assert f"| {rate:.3g} | 1 |" in page.section(tmp_path / "copy")
    file.write_text(file.read_text(encoding="utf-8").replace(str(rate), str(rate * 2)), encoding="utf-8")
    with pytest.raises(ValueError, match=r"edited: cpu-fp32\.json"):
        page.section(tmp_path / "copy")


# ---- the checks ----


@pytest.fixture
def dist() -> Any:
    spec = importlib.util.spec_from_file_location("dist", ROOT / "release" / "dist.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(not (ROOT / ".git").exists() or shutil.which("git") is None, reason="no checkout of git's")
def test_every_file_of_a_package_is_in_the_wheel_and_no_other(dist: Any, tmp_path: Path) -> None:
    wanted = set(dist.shipped(ROOT))
    assert {
        "bertkit/version.py",
        "bertkit/recipes/demo.toml",
        "bertkit_serve/page.html",
        "bertkit_mpi/plan.py",
    } <= wanted
    assert not [name for name in wanted if name.startswith(("tests/", "docs/", "deploy", "backends/"))]
    assert dist.contents(wheel(tmp_path, wanted))["bertkit_slurm"] > 2
    with pytest.raises(dist.Failed, match=r"lacks \['bertkit/version\.py'\]"):
        dist.contents(wheel(tmp_path, wanted - {"bertkit/version.py"}))
    with pytest.raises(dist.Failed, match=r"besides \['tests/x\.py'\]"):
        dist.contents(wheel(tmp_path, wanted | {"tests/x.py"}))


def wheel(folder: Path, names: set[str], metadata: str = "") -> Path:
    path = folder / "bertkit-9-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "")
        archive.writestr("bertkit-9.dist-info/METADATA", metadata)
    return path


def test_what_a_wheel_needs_is_without_its_extras(dist: Any, tmp_path: Path) -> None:
    told = 'Name: bertkit\nRequires-Dist: numpy>=1.26\nRequires-Dist: torch>=2.6\nRequires-Dist: jax; extra == "jax"\n'
    assert dist.requirements(wheel(tmp_path, set(), told)) == ["numpy>=1.26", "torch>=2.6"]


def test_weaknesses_fail_and_an_audit_of_nothing_is_no_audit(dist: Any) -> None:
    good, unknown = {"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}
    weak = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1"}]}
    assert dist.audited([good]).endswith("1 packages without a known weakness, not asked about: 0")
    assert dist.audited([good, unknown]).endswith("not asked about: ['b']")
    assert "skipped" in dist.audited([unknown])
    with pytest.raises(dist.Failed, match="c 2: CVE-1"):
        dist.audited([good, weak, unknown])


def test_sums_are_those_of_the_files(dist: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "DIST", tmp_path)
    (tmp_path / "a.whl").write_bytes(b"abc")
    told = dist.write_sums([tmp_path / "a.whl"]).read_text()
    assert told == f"{hashlib.sha256(b'abc').hexdigest()}  a.whl\n"


def test_a_python_that_is_not_here_is_not_found(dist: Any) -> None:
    mine = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert dist.find_python("3.99") is None
    found = dist.find_python(mine)
    assert found is None or dist.run(found, "--version").startswith(f"Python {mine}.")


def test_what_fails_is_told_with_its_last_words(dist: Any) -> None:
    with pytest.raises(dist.Failed, match="ended with 3: last words"):
        dist.run(sys.executable, "-c", "import sys; print('last words', file=sys.stderr); sys.exit(3)")


# ---- forms and citation ----


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_is_one_that_github_shows(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert set(form) <= {"name", "description", "title", "labels", "assignees", "projects", "type", "body"}
    assert form["name"]
    assert form["description"]
    kinds = {"markdown": {"value"}, "textarea": {"label", "description", "render", "placeholder", "value"},
             "input": {"label", "description", "placeholder", "value"}}  # fmt: skip
    for field in form["body"]:
        assert set(field) <= {"type", "id", "attributes", "validations"}
        assert set(field["attributes"]) <= kinds[field["type"]]
        assert set(field.get("validations", {})) <= {"required"}
    names = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(names) == len(set(names))


def test_forms_ask_for_what_tells_most() -> None:
    for name in ("bug", "hardware"):
        form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text(encoding="utf-8"))
        required = [
            field["attributes"]["label"] for field in form["body"] if field.get("validations", {}).get("required")
        ]
        assert {"bertkit check", "bertkit backends --json"} <= set(required)


def test_commands_in_forms_are_bertkits() -> None:
    root = get_command(app)
    told = {words for path in FORMS for words in re.findall(r"`bertkit ([^`]+)`", path.read_text(encoding="utf-8"))}
    assert len(told) >= 4
    for words in told - {"bench", "--version"}:
        check(root, words.replace("NAME", "cpu").split())


def test_one_version_everywhere() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "type", "version", "license", "authors"} <= set(cited)
    assert cited["version"] == __version__
    assert re.search(
        rf"^## {re.escape(__version__)} \(", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert f"| {__version__.rpartition('.')[0]} | yes |" in (ROOT / "SECURITY.md").read_text(encoding="utf-8")
