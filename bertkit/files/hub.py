"""The model hub: what its cache holds, and what its repositories do, where the package `huggingface_hub` is installed.

The cache is read without the package. Published models are listed by its client and fetched by our own downloads, since
the client begins a killed download anew and leaves the bytes of the old one.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from bertkit.errors import UserError
from bertkit.files.downloads import MIRROR, Unreachable, mirrored
from bertkit.files.inputs import read_text

HUB = "https://huggingface.co"
PLAIN = ("*.json", "vocab.txt")
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # the first kind that a repository has is fetched
TIMEOUT_S = 10.0  # for the list of files
Kind = Literal["model", "dataset"]
TRUE = ("1", "on", "yes", "true")


@dataclass(frozen=True)
class HubFile:
    """A file to fetch of a repository."""

    name: str
    size: int | None
    sha256: str  # "" where the hub keeps none, as of small files
    path: str  # of its address, below the hub's


def is_installed() -> bool:
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        return False
    return True


def is_offline(env: Mapping[str, str] = os.environ) -> bool:
    """Whether the hub's own variable forbids a network."""
    return env.get("HF_HUB_OFFLINE", "").strip().lower() in TRUE


def cached(
    repository: str, env: Mapping[str, str] = os.environ, kind: Kind = "model", revision: str = "main"
) -> Path | None:
    """The folder of a repository's revision (a branch, a tag or a commit) in the hub's cache; None: there is none."""
    folder = cache_folder(env) / (f"{kind}s--" + repository.replace("/", "--"))
    reference = folder / "refs" / revision
    try:
        revision = read_text(reference).strip() if reference.is_file() else "" if revision == "main" else revision
    except (UserError, OSError):
        return None
    found = folder / "snapshots" / revision
    return found if revision and "/" not in revision and revision != ".." and found.is_dir() else None


def cache_folder(env: Mapping[str, str] = os.environ) -> Path:
    """Where the hub's client keeps what it fetched."""
    own = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    if own:
        return Path(own).expanduser()
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(home).expanduser() / "hub"


def endpoint(env: Mapping[str, str] = os.environ) -> str:
    """The hub's address: its own variable, else our mirror, else the hub itself."""
    own = env.get("HF_ENDPOINT", "").rstrip("/")
    return own or (mirrored(HUB, env=env) if env.get(MIRROR) else HUB)


def model(repository: str) -> Path:
    """A repository's folder, from the cache where the hub's variable forbids a network. Raises Unreachable."""
    if is_offline():
        return fetch(repository, (*PLAIN, *WEIGHTS))
    return fetch(repository, [file.name for file in list_files(repository)])


def list_files(repository: str) -> tuple[HubFile, ...]:
    """Files to fetch, weights in one form only. Raises Unreachable where the hub does not tell."""
    import huggingface_hub

    try:
        client = huggingface_hub.HfApi(endpoint=endpoint())
        info = client.model_info(repository, files_metadata=True, timeout=TIMEOUT_S)
    except Exception as error:  # the hub's client raises a dozen types, all of which mean: not to be had
        raise Unreachable(_said(repository, error)) from None
    found = {file.rfilename: file for file in info.siblings or []}
    return tuple(
        HubFile(name, found[name].size, _digest(found[name]), f"/{repository}/resolve/{info.sha or 'main'}/{name}")
        for name in choose(list(found))
    )


def list_data(repository: str, revision: str = "") -> tuple[str, ...]:
    """The files of a data set, "": at its main revision. Raises Unreachable where the hub does not tell."""
    import huggingface_hub

    try:
        client = huggingface_hub.HfApi(endpoint=endpoint())
        info = client.dataset_info(repository, revision=revision or None, timeout=TIMEOUT_S)
    except Exception as error:  # as above
        raise Unreachable(_said(repository, error)) from None
    return tuple(file.rfilename for file in info.siblings or [])


def _digest(file: Any) -> str:
    stored = getattr(file, "lfs", None)
    return str(getattr(stored, "sha256", "") or "")


def choose(names: Sequence[str]) -> tuple[str, ...]:
    """Of a repository's files those that a model is read from."""
    weights = next((kept for pattern in WEIGHTS if (kept := _matching(names, (pattern,)))), [])
    return (*_matching(names, PLAIN), *weights)


def _matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)]


def fetch(repository: str, names: Collection[str], kind: Kind = "model", revision: str | None = None) -> Path:
    """The folder in the hub's cache with the files of these names, or patterns.

    Raises Unreachable where the hub does not give them.
    """
    import huggingface_hub
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    if not sys.stderr.isatty():
        disable_progress_bars()
    where: dict[str, Any] = {} if endpoint() == HUB else {"endpoint": endpoint()}
    try:
        found = huggingface_hub.snapshot_download(
            repository, allow_patterns=sorted(names), repo_type=kind, revision=revision, **where
        )
        return Path(found)
    except Exception as error:  # as above
        raise Unreachable(_said(repository, error)) from None


def upload(repository: str, files: Sequence[Path], texts: Mapping[str, bytes], private: bool, message: str) -> str:
    """Put files, and texts under their names, into the repository in one commit; made where there is none yet.

    Returns its address. Raises UserError where the hub, or the environment, does not let us.
    """
    if is_offline():
        raise UserError("HF_HUB_OFFLINE forbids the network", "unset it to upload")
    try:
        import huggingface_hub as client
    except ImportError:
        raise UserError("uploading needs huggingface_hub", "pip install 'bertkit[hub]'") from None
    named: dict[str, Any] = {path.name: path for path in files} | dict(texts)
    try:
        api = client.HfApi(endpoint=endpoint())
        api.create_repo(repository, private=private, exist_ok=True)
        added = [client.CommitOperationAdd(name, content) for name, content in named.items()]
        api.create_commit(repository, added, commit_message=message)
    except Exception as error:  # as above
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{endpoint()}: did not take {repository}: {reason}", "log in with `hf auth login`") from None
    return f"{endpoint()}/{repository}"


def _said(repository: str, error: Exception) -> str:
    return f"the model hub did not give {repository}: {type(error).__name__}"
