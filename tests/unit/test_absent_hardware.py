"""A run on hardware, or with a package, that is not here: one line says what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest

import bertkit_cuda
import bertkit_gaudi
import bertkit_jax
import bertkit_tensorflow
from bertkit.cli.hf_flags import translate
from bertkit.cli.main import main
from bertkit.recipes.resolve import resolve
from bertkit.training.setup import device_settings
from bertkit_accelerator import AcceleratorBackend
from bertkit_cuda.cards import Found
from bertkit_iluvatar import IluvatarBackend
from bertkit_xpu import XpuBackend

# what is missing, and two ways to get it
WORDS = {
    ("gaudi", "hpu"): ("habana_frameworks is not installed", "container", "habanalabs-installer.sh install"),
    ("cuda", "nvidia"): ("no GPU is visible", "container with --gpus all", "install NVIDIA's driver"),
    ("iluvatar", "corex"): ("CoreX is not installed", "CoreX container", "corex installer"),
    ("xpu", "intel-gpu"): ("no Intel GPU is visible", "install Intel's compute runtime", "container with --device"),
    ("tensorflow", "tf"): ("TensorFlow is not installed", "pip install", "bertkit[tensorflow]"),
    ("jax",): ("JAX is not installed", "pip install", "bertkit[jax]"),
    ("accelerator",): ("no device of torch.accelerator", "mps", "install the vendor's plug-in"),
}


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder on a machine without any of it, whatever this one has."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(bertkit_gaudi, "package_version", lambda: "")
    monkeypatch.setattr(bertkit_gaudi, "find_cards", lambda root, env: bertkit_gaudi.cards.Cards(()))
    monkeypatch.setattr(bertkit_tensorflow, "version", lambda: "")
    monkeypatch.setattr(bertkit_jax, "version", lambda: "")
    monkeypatch.setattr(bertkit_cuda, "find_cards", lambda: Found(()))
    for card in (IluvatarBackend, XpuBackend, AcceleratorBackend):
        look = card.look
        monkeypatch.setattr(card, "look", lambda self, root, env, look=look: look(self, tmp_path, {"PATH": "/nowhere"}))


@pytest.mark.parametrize(("name", "typed"), [(names[0], typed) for names in WORDS for typed in names])
def test_one_line_says_what_is_missing_and_how_to_get_it(
    name: str, typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is read, fetched or written; under the card's other name too."""
    with pytest.raises(SystemExit) as ended:
        main(["train", "--backend", typed, "-m", "large", "-t", "mrpc"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    (line,) = [line for line in said.err.splitlines() if line.startswith("bertkit: ")]
    assert said.err.splitlines()[-1] == line
    assert line.startswith(f"bertkit: backend {name!r} is not ready: ")
    for word in next(words for names, words in WORDS.items() if name in names):
        assert word in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("typed", ["--dist-backend gloo", "--dist_backend=gloo", "--set device.dist_backend=gloo"])
def test_how_gradients_are_summed_as_its_users_type_it(typed: str) -> None:
    words, _ = translate(["train", "--backend", "iluvatar", *typed.split()])
    recipe = resolve({"backend": "iluvatar"}, [words[-1]], env={}).recipe
    assert device_settings(IluvatarBackend(), recipe.device)["dist_backend"] == "gloo"


def test_a_card_without_that_choice_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--backend", "null", "-t", "sample", "--dist-backend", "nccl"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "understood: --dist-backend -> --set device.dist_backend=nccl" in said
    assert "bertkit: backend null has no setting device.dist_backend" in said
