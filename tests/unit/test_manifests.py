"""The manifests in `deploy/`: what their kinds allow, commands that bertkit has, rights, and beginning again."""

from __future__ import annotations

import contextlib
import functools
import importlib
import re
import shlex
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.main import get_command

from bertkit.cli.inner import check
from bertkit.cli.main import app
from bertkit.training.signals import EXIT_CODES
from bertkit.version import __version__
from conftest import ROOT
from manifests import FILES, KUBERNETES, Strict, job_templates, keys, misspelt, pod_templates, read, validate

STOPPED = EXIT_CODES[signal.SIGTERM]
RESOURCES = [(file, at) for file in FILES for at in range(len(read(file)))]


def named(case: tuple[str, int]) -> str:
    return f"{Path(case[0]).stem}-{case[1]}"


def pods() -> list[Any]:
    return [
        pytest.param(template["spec"], id=f"{Path(file).stem}-{template['spec']['containers'][0]['name']}")
        for file in FILES for made in read(file) if "kind" in made for template in pod_templates(made)
    ]  # fmt: skip


@pytest.mark.parametrize("case", RESOURCES, ids=named)
def test_a_manifest_is_what_its_kind_allows(case: tuple[str, int]) -> None:
    validate(read(case[0])[case[1]])


@pytest.mark.parametrize("case", RESOURCES, ids=named)
def test_a_misspelling_of_any_key_is_found(case: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    with contextlib.suppress(ImportError):  # read each schema once
        utils = importlib.import_module("kubernetes_validate.utils")
        monkeypatch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
    made = read(case[0])[case[1]]
    paths = [path for path in keys(made) if path not in (("kind",), ("apiVersion",))]
    assert len(paths) >= 3
    for path in paths:
        wrong = misspelt(made, path)
        with pytest.raises((jsonschema.ValidationError, ValueError)):
            validate(wrong, KUBERNETES[-1:])


def test_a_key_that_stands_twice_is_found() -> None:
    with pytest.raises(ValueError, match="'a'"):
        yaml.load("a: 1\nb: {c: 1}\na: 2\n", Strict)  # noqa: S506 - a safe loader


@pytest.mark.parametrize("file", FILES)
def test_the_first_lines_have_the_two_commands(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    commands = re.findall(r"^#   (\S.*)$", text.partition("\n\n")[0], re.MULTILINE)
    if file.endswith("volume.yaml"):
        assert not commands
        return
    assert len(commands) == 2
    assert all(command.split()[0] in ("kubectl", "sky") for command in commands)
    assert file in " ".join(commands)
    for name in re.findall(r"\bdeploy/[\w/.-]+", " ".join(commands)):
        assert (ROOT / name).is_file()
    page = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
    assert all(command in page for command in commands)


# ---- what the pods may do ----


@pytest.mark.parametrize("spec", pods())
def test_pods_have_no_rights_that_they_do_not_need(spec: Mapping[str, Any]) -> None:
    security = spec["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"], security["runAsGroup"]) == (True, 10001, 0)
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in containers(spec):
        own = container["securityContext"]
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("spec", pods())
def test_pods_have_shared_memory_and_places_to_write_to(spec: Mapping[str, Any]) -> None:
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for container in containers(spec):
        mounted = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
        assert mounted["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108
        assert "emptyDir" in mounted["/tmp"]  # noqa: S108
        assert mounted["/work"]["persistentVolumeClaim"]["claimName"] == "bertkit"
        assert container["image"].rpartition(":")[2].startswith(__version__)
        places = [container["workingDir"], *(each["value"] for each in container.get("env", ()) if "value" in each)]
        assert all(place.startswith(tuple(mounted)) for place in places)


def containers(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*spec["containers"], *spec.get("initContainers", ())]


# ---- requeue ----


@pytest.mark.parametrize("file", ["deploy/kubernetes/job.yaml", "deploy/kubernetes/trainjob.yaml"])
def test_a_pod_that_saved_is_replaced_and_others_count(file: str) -> None:
    (job,) = [made["spec"] for made in read(file) if made["kind"] == "Job"] or [
        one["spec"] for made in read(file) for one in job_templates(made)
    ]
    names = [container["name"] for container in job["template"]["spec"]["containers"]]
    rules = job["podFailurePolicy"]["rules"]
    for_codes = {code: rule for rule in rules for code in rule.get("onExitCodes", {}).get("values", ())}
    assert for_codes[STOPPED]["action"] == "Ignore"
    assert all(rule["onExitCodes"]["containerName"] in names for rule in for_codes.values())
    assert [rule["action"] for rule in rules if "onPodConditions" in rule] == ["Ignore"]
    assert not set(for_codes) & {1, 75, 137}
    assert job["podReplacementPolicy"] == "Failed"
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert "--resume" in " ".join(shlex.join(words) for words in commands(file))


def test_the_other_ways_to_begin_again() -> None:
    (_, job) = read("deploy/kubernetes/mpijob.yaml")
    assert job["spec"]["mpiReplicaSpecs"]["Launcher"]["restartPolicy"] == "OnFailure"
    assert job["spec"]["runPolicy"]["backoffLimit"] > 0
    (task,) = read("deploy/skypilot/train.yaml")
    assert STOPPED in task["resources"]["job_recovery"]["recover_on_exit_codes"]


@pytest.mark.parametrize("file", [file for file in FILES if "train" in file or "mpi" in file])
def test_processes_have_less_time_to_save_than_the_pod(file: str) -> None:
    launched = [words for words in commands(file) if words[0] == "launch"]
    assert launched
    times = [template["spec"]["terminationGracePeriodSeconds"] for made in read(file) if "kind" in made
             for template in pod_templates(made)]  # fmt: skip
    for words in launched:
        grace = float(words[words.index("--grace") + 1])
        assert all(grace + 10 <= time for time in times)


# ---- commands ----


def commands(file: str) -> Iterator[list[str]]:
    """The words of bertkit's that a manifest starts."""
    for made in read(file):
        if "kind" not in made:
            scripts = shlex.split(f"{made['setup']}\n{made['run']}".replace("\n", " ; "))
            yield from _behind(scripts, ".venv/bin/bertkit")
            continue
        if made["kind"] == "TrainJob":
            yield made["spec"]["trainer"]["args"]
        if made["kind"] == "RayJob":
            yield ["train", *_ends(shlex.split(made["spec"]["entrypoint"]))]
        for template in pod_templates(made):
            for container in containers(template["spec"]):
                command = container.get("command", ["bertkit"])
                words = [*command[1:], *container.get("args", ())]
                if command[0] == "bertkit" and words:
                    yield words


def _behind(words: list[str], program: str) -> Iterator[list[str]]:
    for at, word in enumerate(words):
        if word == program:
            end = words.index(";", at) if ";" in words[at:] else len(words)
            yield words[at + 1 : end]


def _ends(words: list[str]) -> list[str]:
    return words[words.index("--") + 1 :]


@pytest.mark.parametrize("file", [file for file in FILES if not file.endswith("volume.yaml")])
def test_commands_are_bertkits(file: str) -> None:
    """Each option and setting, and those behind `launch … --`."""
    root = get_command(app)
    found = list(commands(file))
    assert found
    for words in found:
        check(root, words)
        if words[0] == "launch":
            check(root, _ends(words))


def test_probes_and_ports_are_the_servers() -> None:
    server = (ROOT / "deployment" / "bertkit_serve" / "app.py").read_text(encoding="utf-8")
    deployment, service = read("deploy/kubernetes/serve.yaml")
    spec = deployment["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")}
    assert paths == {
        "startupProbe": "/v2/health/ready", "readinessProbe": "/v2/health/ready", "livenessProbe": "/v2/health/live",
    }  # fmt: skip
    assert all(path.rpartition("/")[2] in server for path in paths.values())
    (port,) = container["ports"]
    assert str(port["containerPort"]) == container["args"][container["args"].index("--port") + 1]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    waits = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= waits + 30  # bertkit serve's --timeout
