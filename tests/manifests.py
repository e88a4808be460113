"""The manifests in `deploy/`, and what each kind of them may hold.

Kinds of Kubernetes itself are checked by the package kubernetes-validate, Kubeflow Trainer's by kubeflow-trainer-api,
both made from the projects' own schemas. For the others there is no package that is light enough: their fields are
listed here as their documents name them (mpi-operator 0.6's and KubeRay 1.3's API references, SkyPilot 0.14's
"YAML spec"), and the pods within are checked as Kubernetes' own.
"""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import pytest
import yaml

from conftest import ROOT

KUBERNETES = ("1.30", "1.37")  # the oldest that the manifests promise (docs/clusters.md), and the newest known
FILES = tuple(str(path.relative_to(ROOT)) for path in sorted((ROOT / "deploy").rglob("*.yaml")))
# mappings whose keys are the user's own
FREE = (
    "labels", "matchLabels", "data", "limits", "requests", "rayStartParams", "accelerators", "file_mounts", "envs",
)  # fmt: skip


class Strict(yaml.SafeLoader):
    """A key that stands twice is an error, as the API server has it."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise ValueError(f"{sorted(twice)} stand twice, line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


def read(file: str) -> list[dict[str, Any]]:
    return list(yaml.load_all((ROOT / file).read_text(encoding="utf-8"), Strict))


def closed(*names: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object with these fields only; those by position may hold anything."""
    return {"type": "object", "properties": {name: {} for name in names} | properties, "additionalProperties": False}


def listed(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


WHOLE, TEXT, TRUTH = {"type": "integer", "minimum": 0}, {"type": "string"}, {"type": "boolean"}
META = closed(name=TEXT, namespace=TEXT, labels={"type": "object"}, annotations={"type": "object"})
REPLICA = closed("template", replicas=WHOLE, restartPolicy={"enum": ["Always", "OnFailure", "Never"]})
MPI_JOB = closed(
    apiVersion={"const": "kubeflow.org/v2beta1"},
    kind=TEXT,
    metadata=META,
    spec=closed(
        slotsPerWorker=WHOLE,
        runLauncherAsWorker=TRUTH,
        mpiImplementation={"enum": ["OpenMPI", "Intel", "MPICH"]},
        launcherCreationPolicy={"enum": ["AtStartup", "WaitForWorkersReady"]},
        sshAuthMountPath=TEXT,
        runPolicy=closed(
            "schedulingPolicy",
            cleanPodPolicy={"enum": ["All", "Running", "None"]},
            ttlSecondsAfterFinished=WHOLE,
            activeDeadlineSeconds=WHOLE,
            backoffLimit=WHOLE,
            suspend=TRUTH,
            managedBy=TEXT,
        ),
        mpiReplicaSpecs=closed(Launcher=REPLICA, Worker=REPLICA),
    ),
)
RAY_GROUP = {"rayStartParams": {"type": "object"}, "labels": {"type": "object"}, "resources": {"type": "object"}}
RAY_JOB = closed(
    apiVersion={"const": "ray.io/v1"},
    kind=TEXT,
    metadata=META,
    spec=closed(
        "submitterPodTemplate", "submitterConfig", "metadata", "clusterSelector", "deletionStrategy",
        entrypoint=TEXT,
        runtimeEnvYAML=TEXT,
        jobId=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
        entrypointNumCpus={"type": "number"},
        entrypointNumGpus={"type": "number"},
        entrypointResources=TEXT,
        activeDeadlineSeconds=WHOLE,
        backoffLimit=WHOLE,
        ttlSecondsAfterFinished=WHOLE,
        shutdownAfterJobFinishes=TRUTH,
        suspend=TRUTH,
        managedBy=TEXT,
        rayClusterSpec=closed(
            "autoscalerOptions", "headServiceAnnotations", "gcsFaultToleranceOptions", "upgradeStrategy", "authOptions",
            rayVersion=TEXT,
            enableInTreeAutoscaling=TRUTH,
            suspend=TRUTH,
            managedBy=TEXT,
            headGroupSpec=closed("template", "headService", enableIngress=TRUTH, serviceType=TEXT, **RAY_GROUP),
            workerGroupSpecs=listed(
                closed(
                    "template", "scaleStrategy",
                    groupName=TEXT,
                    replicas=WHOLE,
                    minReplicas=WHOLE,
                    maxReplicas=WHOLE,
                    numOfHosts=WHOLE,
                    idleTimeoutSeconds=WHOLE,
                    suspend=TRUTH,
                    **RAY_GROUP,
                )
            ),
        ),
    ),
)  # fmt: skip
CODES = {"anyOf": [WHOLE, listed({"type": "integer", "minimum": 0, "maximum": 255})]}
SKY_TASK = closed(
    "service", "pool", "secrets", "volumes", "config",
    name=TEXT,
    workdir=TEXT,
    num_nodes=WHOLE,
    envs={"type": "object"},
    setup=TEXT,
    run=TEXT,
    file_mounts={
        "type": "object",
        "additionalProperties": {
            "anyOf": [
                TEXT,
                closed(
                    "store", "persistent", "config",
                    name=TEXT,
                    source=TEXT,
                    mode={"enum": ["MOUNT", "COPY", "MOUNT_CACHED"]},
                ),
            ]
        },
    },
    resources=closed(
        "any_of", "ordered", "autostop", "labels", "ports", "network_tier",
        infra=TEXT,
        accelerators={"type": ["string", "object"]},
        accelerator_args={"type": "object"},
        cpus={"type": ["string", "number"]},
        memory={"type": ["string", "number"]},
        instance_type=TEXT,
        image_id={"type": ["string", "object"]},
        use_spot=TRUTH,
        disk_size={"type": ["string", "integer"]},
        disk_tier=TEXT,
        job_recovery={
            "anyOf": [TEXT, closed(strategy=TEXT, max_restarts_on_errors=WHOLE, recover_on_exit_codes=CODES)]
        },
    ),
)  # fmt: skip


OWN = {
    kind: jsonschema.Draft202012Validator(schema)
    for kind, schema in {"MPIJob": MPI_JOB, "RayJob": RAY_JOB, "": SKY_TASK}.items()
}


def validate(made: Mapping[str, Any], versions: Sequence[str] = KUBERNETES) -> None:
    """Raises an exception whose text names what is wrong. Skips the test where the kind's package is not installed."""
    kind = made.get("kind", "")
    if kind in OWN:
        OWN[kind].validate(made)
    elif kind in ("TrainJob", "TrainingRuntime"):
        _kubeflow(made)
    else:
        _kubernetes(made, versions)
        return
    within = [{"apiVersion": "batch/v1", "kind": "Job", "spec": one["spec"]} for one in job_templates(made)]
    pods = [] if within else pod_templates(made)
    within += [{"apiVersion": "v1", "kind": "PodTemplate", "template": one} for one in pods]
    for one in within:
        _kubernetes({"metadata": {"name": "within"}} | one, versions)


def _kubernetes(made: Mapping[str, Any], versions: Sequence[str]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for version in versions:
        kubernetes_validate.validate(copy.deepcopy(made), version, strict=True)


def _kubeflow(made: Mapping[str, Any]) -> None:
    """The classes leave out what they do not know, so what they give back must have every key."""
    pytest.importorskip("kubeflow_trainer_api", reason="kubeflow-trainer-api is not installed")
    models = importlib.import_module("kubeflow_trainer_api.models")
    back = getattr(models, f"TrainerV1alpha1{made['kind']}").from_dict(copy.deepcopy(made)).to_dict()
    unknown = [path for path in keys(made) if not _has(back, path)]
    if unknown:
        raise ValueError(f"unknown: {unknown}")


def _has(made: Any, path: tuple[str | int, ...]) -> bool:
    for step in path:
        there = step in made if isinstance(made, Mapping) else isinstance(made, list) and int(step) < len(made)
        if not there:
            return False
        made = made[step]
    return True


# ---- walking ----


def keys(made: Any, above: tuple[str | int, ...] = (), free: bool = False) -> Iterator[tuple[str | int, ...]]:
    """The path of every key that is no user's own."""
    if isinstance(made, Mapping):
        for key, value in made.items():
            if not free:
                yield (*above, key)
            users = key in FREE or (key == "selector" and "matchLabels" not in value)
            yield from keys(value, (*above, key), free=users and isinstance(value, Mapping))
    elif isinstance(made, list):
        for at, value in enumerate(made):
            yield from keys(value, (*above, at))


def misspelt(made: Mapping[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """A copy in which two letters of the key at `path` are swapped, or one is doubled."""
    copied: Any = copy.deepcopy(made)
    inner: Any = copied
    for step in path[:-1]:
        inner = inner[step]
    name = str(path[-1])
    swapped = name[0] + name[2] + name[1] + name[3:] if len(name) > 2 and name[1] != name[2] else name + name[-1]
    inner[swapped] = inner.pop(name)
    return dict(copied)


def _inner(made: Any, wanted: str) -> Iterator[Any]:
    if isinstance(made, Mapping):
        if wanted in made:
            yield made[wanted]
        for value in made.values():
            yield from _inner(value, wanted)
    elif isinstance(made, list):
        for value in made:
            yield from _inner(value, wanted)


def pod_templates(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each pod is made of: {metadata, spec}."""
    return [one for one in _inner(made, "template") if not {"template", "replicatedJobs"} & set(one.get("spec", {}))]


def job_templates(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each Job within another kind is made of: {metadata, spec}."""
    return [one for one in _inner(made, "template") if "template" in one.get("spec", {})]
