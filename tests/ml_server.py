"""A real MLServer for tests: it runs an exported ONNX file, and its own types read what `bertkit serve` says.

It wants older packages than bertkit's tests, so it has a Python environment of its own, which BERTKIT_TEST_MLSERVER
names: `python -m venv DIR && DIR/bin/pip install mlserver onnxruntime`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any

from command import free_port
from other_servers import running

VARIABLE = "BERTKIT_TEST_MLSERVER"
RUNTIME = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class OnnxModel(MLModel):
    async def load(self):
        self.session = onnxruntime.InferenceSession(self.settings.parameters.uri, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        given = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in self.session.get_outputs()]
        found = zip(names, self.session.run(names, given))
        outputs = [NumpyCodec.encode_output(name, values) for name, values in found]
        return InferenceResponse(model_name=self.name, model_version=self.version, id=payload.id, outputs=outputs)
"""
# Reads [[name of a type, JSON], …] and writes what its types make of each.
READER = """
import json, sys
from mlserver import types
made = [getattr(types, name).model_validate(found) for name, found in json.load(sys.stdin)]
print(json.dumps([one.model_dump(exclude_none=True) for one in made]))
"""


def absent() -> str:
    """What is missing; "" where a server can be started and asked."""
    if not os.environ.get(VARIABLE):
        return f"no MLServer: {VARIABLE} names no Python environment with mlserver (tests/ml_server.py)"
    if not (_environment() / "mlserver").exists():
        return f"no mlserver in {_environment()}"
    missing = [name for name in ("onnx", "onnxruntime") if not util.find_spec(name)]
    return f"no {missing[0]}: pip install 'bertkit[onnx]'" if missing else ""


def as_read(told: Sequence[tuple[str, Any]]) -> list[Any]:
    """What MLServer's types make of [(name of a type, JSON), …]; fails where one does not take it."""
    done = subprocess.run(
        [_environment() / "python", "-c", READER], input=json.dumps(told), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    made: list[Any] = json.loads(done.stdout)
    return made


@contextlib.contextmanager
def ml_server(folder: Path, file: Path, metadata: Mapping[str, Any]) -> Iterator[str]:
    """The address of a server whose one model runs the ONNX file, when it is ready. `metadata`: of that model."""
    folder.mkdir()
    ports = {name: free_port() for name in ("http_port", "grpc_port", "metrics_port")}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **ports}))
    told = {"implementation": "runtime.OnnxModel", "parameters": {"uri": str(file), "version": "1"}}
    told |= {name: metadata[name] for name in ("name", "inputs", "outputs")}
    (folder / "model-settings.json").write_text(json.dumps(told))
    (folder / "runtime.py").write_text(RUNTIME)
    address = f"http://127.0.0.1:{ports['http_port']}"
    words = (_environment() / "mlserver", "start", ".")
    with running(words, folder, f"{address}/v2/models/{metadata['name']}/ready"):
        yield address


def _environment() -> Path:
    return Path(os.environ[VARIABLE]).resolve() / "bin"
