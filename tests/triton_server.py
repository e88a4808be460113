"""A real Triton server for tests: the one in the wheel `nvidia-pytriton`, which has the python backend and no other.

It wants an older numpy than bertkit's tests, so it has a Python environment of its own, which BERTKIT_TEST_TRITON
names: `python -m venv DIR && DIR/bin/pip install nvidia-pytriton onnxruntime tokenizers`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from command import free_port
from other_servers import running

VARIABLE = "BERTKIT_TEST_TRITON"
# Stands in for the onnxruntime backend, which is not in the wheel: the exported file by onnxruntime itself.
STAND_IN = """
import json, os
import onnxruntime
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def initialize(self, args):
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.names = [each["name"] for each in config["input"]], [each["name"] for each in config["output"]]

    def execute(self, requests):
        answers = []
        for request in requests:
            inputs = {name: pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in self.names[0]}
            found = self.session.run(self.names[1], inputs)
            tensors = [pb_utils.Tensor(name, values) for name, values in zip(self.names[1], found)]
            answers.append(pb_utils.InferenceResponse(tensors))
        return answers
"""


def client() -> Any:
    """Triton's own client over HTTP. The test is skipped without: the package may be here without that part of it."""
    pytest.importorskip("geventhttpclient", reason="no geventhttpclient: pip install 'tritonclient[http]'")
    return pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")


def absent() -> str:
    """What is missing; "" where a server can be started and asked."""
    if not os.environ.get(VARIABLE):
        return f"no Triton server: {VARIABLE} names no Python environment with nvidia-pytriton (tests/triton_server.py)"
    if not list(_environment().glob("lib/python*/site-packages/pytriton/tritonserver/bin/tritonserver")):
        return f"no tritonserver in {_environment()}"
    missing = [name for name in ("tritonclient", "geventhttpclient", "onnx", "onnxruntime") if not util.find_spec(name)]
    return f"no {missing[0]}: pip install 'bertkit[triton-export]' 'tritonclient[http]'" if missing else ""


def with_stand_in(repository: Path, name: str) -> None:
    """The model `name` is computed by `STAND_IN`; nothing else of its configuration changes."""
    config = repository / name / "config.pbtxt"
    text, times = re.subn('backend: "onnxruntime"', 'backend: "python"', config.read_text())
    assert times == 1
    config.write_text(text)
    (repository / name / "1" / "model.py").write_text(STAND_IN)


@contextlib.contextmanager
def triton_server(repository: Path, scratch: Path) -> Iterator[str]:
    """host:port of a server over the repository, when it is ready. `scratch`: for what it needs, and its log."""
    packages = next(_environment().glob("lib/python*/site-packages"))
    wheel, version = packages / "pytriton" / "tritonserver", packages.parent.name.removeprefix("python")
    backend = scratch / "backends" / "python"
    shutil.copytree(wheel / "backends" / "python", backend)
    shutil.copy(wheel / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
    (backend / "triton_python_backend_stub").chmod(0o755)
    ports = [free_port() for _ in range(3)]
    words = [str(wheel / "bin" / "tritonserver"), f"--model-repository={repository}"]
    words += [f"--backend-directory={backend.parent}", "--allow-gpu-metrics=false", "--exit-timeout-secs=5"]
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        words += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    variables = {"LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs")}
    variables["PATH"] = f"{_environment() / 'bin'}:{os.environ['PATH']}"  # by which the backend finds its Python
    with running(words, scratch, f"http://127.0.0.1:{ports[0]}/v2/health/ready", os.environ | variables):
        yield f"127.0.0.1:{ports[0]}"


def _environment() -> Path:
    return Path(os.environ[VARIABLE]).resolve()
