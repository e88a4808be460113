"""The GPUs that made /proc and /sys trees show, which of them are visible, and what the probe says in each state."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bertkit_cuda
from bertkit_cuda import CudaBackend
from bertkit_cuda.cards import Card, Found, driver, find_cards, read_cards, visible
from bertkit_cuda.energy import joules
from bertkit_cuda.nvml import Library, read_library
from bertkit_cuda.support import architecture_missing, driver_too_old, has_code_for
from bertkit_torch.build import Build, read_build, torch_build

VERSION = """\
NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build  (builder)  Fri Jan 24 2025
GCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1~22.04)
"""
UUIDS = ("GPU-eaf23aa1-4d3d-596c-da66-b86b0e5db584", "GPU-0c1d22aa-3897-f599-d088-ccd04ae45ec1", "GPU-0c99-ff")


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def gpu(number: int, model: str, node: str = "0", uuid: str = "") -> dict[str, str]:
    """The driver's files of one card on bus 1b, 1c, …"""
    bus = f"0000:{27 + number:02X}:00.0"
    text = (
        f"Model: \t\t {model}\nIRQ:   \t\t 7{number}\nGPU UUID: \t {uuid or UUIDS[number % 3]}\nVideo BIOS: \t 96.00\n"
        f"Bus Type: \t PCIe\nDMA Size: \t 52 bits\nBus Location: \t {bus}\nDevice Minor: \t {number}\n"
        "GPU Excluded:\t No\n"
    )
    return {
        f"proc/driver/nvidia/gpus/{bus}/information": text,
        f"sys/bus/pci/devices/{bus.lower()}/numa_node": f"{node}\n",
        f"dev/nvidia{number}": "",
    }


def amd(number: int, version: int, simd: int = 304, vendor: int = 4098) -> dict[str, str]:
    text = f"cpu_cores_count 0\nsimd_count {simd}\nvendor_id {vendor}\ngfx_target_version {version}\n"
    return {f"sys/class/kfd/kfd/topology/nodes/{number}/properties": text}


# ---- the files ----


def test_a_box_of_cards_with_their_nodes(tmp_path: Path) -> None:
    files = gpu(0, "NVIDIA H200") | gpu(1, "NVIDIA H200", "1") | gpu(2, "NVIDIA H200", "-1")
    found = read_cards(write(tmp_path, files))
    assert found == [Card("NVIDIA H200", node, uuid) for node, uuid in zip((0, 1, -1), UUIDS, strict=True)]


def test_half_a_file_is_a_card_still(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/driver/nvidia/gpus/0000:01:00.0/information": "IRQ: 3\n", "dev/nvidia0": ""})
    assert read_cards(root) == [Card("NVIDIA GPU")]


def test_a_uuid_that_the_driver_does_not_know_yet(tmp_path: Path) -> None:
    unknown = "GPU-????????-????-????-????-????????????"
    assert read_cards(write(tmp_path, gpu(0, "NVIDIA T4", uuid=unknown)))[0].uuid == ""


def test_amd_cards_by_their_architecture(tmp_path: Path) -> None:
    """Node 0 is the CPU; ten stands behind two."""
    files = amd(0, 0, simd=0, vendor=4130) | amd(10, 110000) | amd(2, 90402) | amd(3, 90010) | amd(4, 100300)
    names = [card.name for card in read_cards(write(tmp_path, files))]
    assert names == ["AMD gfx942", "AMD gfx90a", "AMD gfx1030", "AMD gfx1100"]


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert read_cards(tmp_path) == []
    assert driver(tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (VERSION, "570.86.15"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\n", "535.104.05"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  455.32  Fri\n", "455.32"),
        ("garbage", ""),
    ],
)
def test_the_drivers_version(tmp_path: Path, text: str, version: str) -> None:
    assert driver(write(tmp_path, {"proc/driver/nvidia/version": text})) == version


OLD = (
    "Tesla V100-SXM2-16GB", "Tesla V100S-PCIE-32GB", "Quadro GV100", "NVIDIA TITAN V", "NVIDIA TITAN Xp", "Tesla T4",
    "NVIDIA T4", "NVIDIA T4G", "GRID T4-16Q", "NVIDIA T400 4GB", "NVIDIA T1200 Laptop GPU", "NVIDIA TITAN RTX",
    "NVIDIA GeForce RTX 2080 Ti", "NVIDIA GeForce RTX 2070 SUPER", "Quadro RTX 6000", "NVIDIA GeForce GTX 1660 Ti",
    "Tesla P100-PCIE-16GB", "Tesla P40", "Tesla P4", "Tesla K80", "Tesla K40m", "Tesla M60", "NVIDIA GeForce MX450",
)  # fmt: skip
NEW = (
    "NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-40GB", "NVIDIA A10G", "NVIDIA A40", "NVIDIA A2",
    "NVIDIA L4", "NVIDIA L40S", "NVIDIA B200", "NVIDIA GH200 480GB", "NVIDIA GeForce RTX 3090",
    "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 5090", "NVIDIA RTX A6000", "NVIDIA RTX A2000 12GB",
    "NVIDIA RTX 2000 Ada Generation", "NVIDIA RTX 4000 Ada Generation", "NVIDIA RTX 6000 Ada Generation",
    "NVIDIA RTX PRO 6000 Blackwell Server Edition", "AMD gfx942",
)  # fmt: skip


@pytest.mark.parametrize("name", OLD)
def test_cards_before_ampere_have_no_bf16(name: str) -> None:
    assert not Card(name).has_bf16


@pytest.mark.parametrize("name", NEW)
def test_cards_from_ampere_on_have_it(name: str) -> None:
    assert Card(name).has_bf16


# ---- what else shows GPUs ----


class FakeLibrary:
    """NVIDIA's management library, as far as it is asked, of GPUs on buses 1b, 1c, …"""

    def __init__(self, names: list[str], closed: tuple[int, ...] = (), minors: bool = True, cuda: int = 12080) -> None:
        self.names, self.closed, self.minors, self.cuda = names, closed, minors, cuda

    def __getattr__(self, name: str) -> Any:
        def number(at: Any, value: int) -> int:
            at._obj.value = value
            return 0

        def text(at: Any, value: str) -> int:
            at.value = value.encode()
            return 0

        def handle(which: Any, at: Any) -> int:
            return 4 if which.value in self.closed else number(at, which.value + 100)  # 4: no permission

        def capability(of: Any, major: Any, minor: Any) -> int:
            return number(major, 9) or number(minor, 0)

        def bus(of: Any, at: Any) -> int:
            at._obj.domain, at._obj.bus, at._obj.device = 0, 27 + of.value - 100, 0
            return 0

        return {
            "nvmlInit_v2": lambda: 0,
            "nvmlShutdown": lambda: 0,
            "nvmlDeviceGetCount_v2": lambda at: number(at, len(self.names)),
            "nvmlSystemGetCudaDriverVersion_v2": lambda at: number(at, self.cuda),
            "nvmlSystemGetDriverVersion": lambda at, length: text(at, "570.86.15"),
            "nvmlDeviceGetHandleByIndex_v2": handle,
            "nvmlDeviceGetMinorNumber": lambda of, at: number(at, of.value - 100) if self.minors else 3,
            "nvmlDeviceGetCudaComputeCapability": capability,
            "nvmlDeviceGetName": lambda of, at, length: text(at, self.names[of.value - 100]),
            "nvmlDeviceGetUUID": lambda of, at, length: text(at, UUIDS[of.value - 100]),
            "nvmlDeviceGetPciInfo_v3": bus,
        }[name]


def told(library: FakeLibrary) -> Callable[[], Library | None]:
    return lambda: read_library(lambda name: library)


def test_the_drivers_library_tells_name_uuid_node_and_capability(tmp_path: Path) -> None:
    root = write(tmp_path, gpu(0, "old name", "1") | gpu(1, "old name", "0"))
    found = find_cards(root, told(FakeLibrary(["NVIDIA H200", "NVIDIA H200"])))
    assert (found.driver, found.cuda) == ("570.86.15", (12, 8))
    assert found.cards == tuple(Card("NVIDIA H200", node, UUIDS[n], (9, 0)) for n, node in enumerate((1, 0)))


def test_a_gpu_that_this_process_may_not_open_is_none_of_its(tmp_path: Path) -> None:
    root = write(tmp_path, {f"dev/nvidia{number}": "" for number in range(3)})
    found = find_cards(root, told(FakeLibrary(["A", "B", "C"], closed=(1,))))
    assert [card.name for card in found.cards] == ["A", "C"]


def test_without_a_library_files_are_read(tmp_path: Path) -> None:
    def missing(name: str) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    assert read_library(missing) is None
    assert read_library(lambda name: SimpleNamespace(nvmlInit_v2=lambda: 9)) is None  # no driver behind it
    assert read_library(lambda name: SimpleNamespace()) is None  # an older library
    root = write(tmp_path, gpu(0, "NVIDIA A100") | {"proc/driver/nvidia/version": VERSION})
    found = find_cards(root, lambda: read_library(missing))
    assert [card.name for card in found.cards] == ["NVIDIA A100"]
    assert (found.driver, found.cuda) == ("570.86.15", (0, 0))


EIGHT = {
    name: text for number in range(8) for name, text in gpu(number, "NVIDIA A100", "1").items() if "dev/" not in name
}


@pytest.mark.parametrize("library", [False, True])
@pytest.mark.parametrize("given", [(0,), (5,), (2, 7)])
def test_a_container_with_the_hosts_list_has_the_gpus_whose_device_files_it_has(
    tmp_path: Path, given: tuple[int, ...], library: bool
) -> None:
    """Eight are listed in /proc, which a container shares with its host."""
    root = write(tmp_path, EIGHT | {f"dev/nvidia{number}": "" for number in given} | {"dev/nvidiactl": ""})
    if library:
        many = FakeLibrary(["NVIDIA A100"] * 3)
        many.names, own = ["NVIDIA A100"] * 3, tuple(number for number in given if number < 3)
        assert len(find_cards(root, told(many)).cards) == len(own)
        return
    found = read_cards(root)
    assert len(found) == len(given)
    assert {(card.name, card.node) for card in found} == {("NVIDIA A100", 1)}


def test_a_container_with_none_of_the_hosts_gpus_has_none(tmp_path: Path) -> None:
    root = write(tmp_path, EIGHT)
    assert read_cards(root) == []
    write(root, {"usr/bin/nvidia-modprobe": ""})  # on the host itself it makes the device files at the first use
    assert len(read_cards(root)) == 8


def test_device_files_alone_are_gpus(tmp_path: Path) -> None:
    """gVisor has no /proc/driver."""
    root = write(tmp_path, {"dev/nvidia0": "", "dev/nvidia1": "", "dev/nvidiactl": "", "dev/nvidia-uvm": ""})
    assert read_cards(root) == [Card("NVIDIA GPU")] * 2


def test_wsl2_has_one_by_its_library_or_by_its_files(tmp_path: Path) -> None:
    root = write(tmp_path, {"dev/dxg": ""})
    assert read_cards(root) == []  # of another vendor
    write(root, {"usr/lib/wsl/lib/libcuda.so.1": ""})
    assert [card.name for card in read_cards(root)] == ["NVIDIA GPU under WSL2"]
    (card,) = find_cards(root, told(FakeLibrary(["NVIDIA GeForce RTX 4090"], minors=False))).cards
    assert card.name == "NVIDIA GeForce RTX 4090"


def test_a_jetson_has_the_one_of_its_board(tmp_path: Path) -> None:
    files = {"dev/nvhost-gpu": "", "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"}
    assert read_cards(write(tmp_path, files)) == [Card("NVIDIA Jetson AGX Orin Developer Kit")]


# ---- whether torch can run on them ----


@pytest.mark.parametrize(
    ("toolkit", "version", "cuda", "said"),
    [
        ("12.8", "570.86.15", (12, 8), ""),
        ("12.8", "535.104.05", (12, 2), ""),  # within a major version older drivers do
        ("13.0", "570.86.15", (12, 8), "driver 570.86.15 runs CUDA up to 12.8, but torch is built for CUDA 13.0"),
        ("12.4", "470.82.01", (11, 4), "install driver 525 or newer"),
        ("12.4", "470.82.01", (12, 4), ""),  # a compatibility package is installed
        ("12.4", "470.82.01", (0, 0), "driver 470.82.01 is older than CUDA 12 needs"),
        ("12.4", "525.60.13", (0, 0), ""),
        ("12.4", "", (0, 0), ""),
        ("14.0", "600.1", (13, 1), "install a newer driver"),
    ],
)
def test_a_driver_older_than_the_toolkit(toolkit: str, version: str, cuda: tuple[int, int], said: str) -> None:
    found = driver_too_old(toolkit, version, cuda)
    assert said in found
    assert bool(said) == bool(found)


@pytest.mark.parametrize(
    ("capability", "toolkit", "said"),
    [
        ((9, 0), "12.4", ""),
        (
            (12, 0),
            "12.4",
            "compute capability 12.0, but torch for CUDA 12.4 has code up to 9.0; install a torch for a newer",
        ),
        ((12, 0), "12.8", ""),
        ((6, 1), "12.6", ""),
        ((6, 1), "12.8", "code from 7.0 on; install a torch for an older"),
        ((7, 0), "13.0", "code from 7.5 on"),
        ((8, 9), "13.0", ""),
        ((0, 0), "13.0", ""),
        ((12, 0), "10.2", ""),  # a build that nobody knows here
    ],
)
def test_an_architecture_without_code(capability: tuple[int, int], toolkit: str, said: str) -> None:
    cards = [Card("a card", capability=capability)]
    found = architecture_missing(cards, toolkit, official=True)
    assert said in found
    assert bool(said) == bool(found)
    assert architecture_missing(cards, toolkit, official=False) == ""


@pytest.mark.parametrize(
    ("capability", "known", "has"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_80", "sm_86"], True),
        ((8, 0), ["sm_86", "sm_90"], False),
        ((12, 0), ["sm_80", "sm_90a"], False),
        ((12, 0), ["sm_90", "compute_90"], True),
        ((12, 1), ["sm_100", "sm_120"], True),
        ((7, 0), [], True),
    ],
)
def test_code_for_an_architecture(capability: tuple[int, int], known: list[str], has: bool) -> None:
    assert has_code_for(capability, known) == has


# ---- which are visible ----

FOUR = [Card(f"card {number}", number, f"GPU-{number}{number}aa-bb") for number in range(4)]


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("0", [0]),
        ("0,1,2,3", [0, 1, 2, 3]),
        ("3,1", [3, 1]),
        (" 2 , 0 ", [2, 0]),
        ("", []),
        ("-1", []),
        ("1,-1,2", [1]),
        ("1,9,2", [1]),
        ("4", []),
        ("NoDevFiles", []),
        ("none", []),
        ("²", []),
        ("0,,1", [0]),
        ("GPU-22aa-bb", [2]),
        ("GPU-33,GPU-0", [3, 0]),
        ("GPU-99,0", []),
        ("1,GPU-99", [1]),
    ],
)
def test_visible_cards(text: str, chosen: list[int]) -> None:
    assert visible(FOUR, {"CUDA_VISIBLE_DEVICES": text}) == [FOUR[number] for number in chosen]


def test_without_the_variable_all_are() -> None:
    assert visible(FOUR, {}) == FOUR
    assert visible(FOUR, {"HIP_VISIBLE_DEVICES": "1"}) == [FOUR[1]]
    assert visible(FOUR, {"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "2"}) == [FOUR[2]]


@pytest.mark.parametrize("word", ["MIG-22aa-bb", "MIG-GPU-22aa-bb/1/0", "GPU-ff"])
def test_a_part_or_a_card_without_a_known_uuid_is_some_card(word: str) -> None:
    unknown = [Card("NVIDIA A100", 1), Card("NVIDIA A100", 0)]
    assert visible(unknown, {"CUDA_VISIBLE_DEVICES": word}) == [Card("NVIDIA A100")]
    assert visible([], {"CUDA_VISIBLE_DEVICES": word}) == []


@given(st.lists(st.integers(-2, 6), max_size=6))
def test_the_list_ends_at_the_first_that_does_not_exist(numbers: list[int]) -> None:
    wanted: list[Card] = []
    for number in numbers:
        if not 0 <= number < 4:
            break
        wanted.append(FOUR[number])
    assert visible(FOUR, {"CUDA_VISIBLE_DEVICES": ",".join(map(str, numbers))}) == wanted


@given(st.text(alphabet="0123,- GPUMIG²x", max_size=12))
def test_any_text_leaves_cards_that_are_there(text: str) -> None:
    assert {card.name for card in visible(FOUR, {"CUDA_VISIBLE_DEVICES": text})} <= {card.name for card in FOUR}


# ---- energy ----


class Refused(Exception):
    """What the management library raises."""


def test_energy_where_the_management_library_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def by_uuid(uuid: str) -> str:
        asked.append(uuid)
        return uuid

    def millijoules(handle: str) -> int:
        if handle == "GPU-old":
            raise Refused
        return 1_500

    library = SimpleNamespace(
        nvmlInit=lambda: None, nvmlDeviceGetHandleByUUID=by_uuid, nvmlDeviceGetTotalEnergyConsumption=millijoules,
        NVMLError=Refused,
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "pynvml", library)
    assert joules("12-34") == 1.5
    assert asked == ["GPU-12-34"]
    assert joules("old") is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert joules("12-34") is None


# ---- what torch was built for ----

CPU_BUILD = """\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cpu'
debug = False
cuda: Optional[str] = None
git_version = '0123456789abcdef'
hip: Optional[str] = None
xpu: Optional[str] = None
"""
CUDA_BUILD = CPU_BUILD.replace("+cpu", "+cu128").replace("cuda: Optional[str] = None", "cuda: Optional[str] = '12.8'")
ROCM_BUILD = CPU_BUILD.replace("+cpu", "+rocm6.4").replace("hip: Optional[str] = None", "hip: Optional[str] = '6.4.4'")


@pytest.mark.parametrize(
    ("text", "build"),
    [
        (CPU_BUILD, Build("2.13.0+cpu", {})),
        (CUDA_BUILD, Build("2.13.0+cu128", {"cuda": "12.8"})),
        (ROCM_BUILD, Build("2.13.0+rocm6.4", {"hip": "6.4.4"})),
        ("", Build("from metadata", {})),
        ("__version__ = 2", Build("from metadata", {})),
    ],
)
def test_torchs_own_file_says_it(tmp_path: Path, text: str, build: Build) -> None:
    file = write(tmp_path, {"version.py": text}) / "version.py"
    assert read_build(file, "from metadata") == build
    assert read_build(tmp_path / "absent.py", "from metadata") == Build("from metadata", {})
    assert build.suffix == build.version.partition("+")[2]


# ---- the probe ----


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a machine without cards, with a torch that must not be imported: `site/torch/version.py` is it."""
    monkeypatch.setattr(bertkit_cuda, "find_cards", lambda: find_cards(tmp_path / "root", lambda: None))
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return tmp_path / "root"


def install(machine: Path, version_file: str) -> None:
    """A torch of which only the files are good."""
    files = {"torch/__init__.py": "raise SystemExit('imported merely to look')", "torch/version.py": version_file}
    write(machine.parent / "site", files)
    importlib.invalidate_caches()


def test_without_torch(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(machine.parent / "site")])
    importlib.invalidate_caches()
    assert torch_build() is None
    assert CudaBackend().probe().detail == "torch is not installed; pip install torch brings a CUDA build"


@pytest.mark.parametrize("version_file", [CPU_BUILD, CUDA_BUILD])
def test_no_card(machine: Path, version_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, version_file)
    probe = CudaBackend().probe()
    assert not probe.ready
    assert probe.detail == "no GPU is visible; install NVIDIA's driver, or start the container with --gpus all"
    write(machine, gpu(0, "NVIDIA H200"))
    for hidden in ("", "-1", "7"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert CudaBackend().probe().detail.startswith(f"no GPU is visible (CUDA_VISIBLE_DEVICES={hidden}); ")


def test_a_card_and_a_torch_without_cuda(machine: Path) -> None:
    install(machine, CPU_BUILD)
    write(machine, gpu(0, "NVIDIA H200"))
    probe = CudaBackend().probe()
    assert not probe.ready
    assert probe.detail.startswith("NVIDIA H200 is here, but torch 2.13.0+cpu is built without CUDA; install a CUDA")
    assert "pytorch.org" in probe.detail


def test_ready(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, CUDA_BUILD)
    write(machine, gpu(0, "NVIDIA H200", "0") | gpu(1, "NVIDIA H200", "1"))
    probe = CudaBackend().probe()
    assert probe.ready
    assert probe.detail == "2 x NVIDIA H200, torch 2.13.0+cu128 with CUDA 12.8"
    assert probe.precisions == ("fp32", "tf32", "bf16", "fp16")
    assert probe.cards == (0, 1)
    write(machine, {"proc/driver/nvidia/version": VERSION})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    probe = CudaBackend().probe()
    assert probe.detail == "NVIDIA H200, driver 570.86.15, torch 2.13.0+cu128 with CUDA 12.8"
    assert probe.cards == (1,)


def test_mixed_cards_promise_what_all_of_them_have(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, CUDA_BUILD)
    write(machine, gpu(0, "NVIDIA A100-SXM4-40GB") | gpu(1, "Tesla V100-SXM2-16GB"))
    assert CudaBackend().probe().precisions == ("fp32", "fp16")
    for shown, precisions in (("0", ("fp32", "tf32", "bf16", "fp16")), (UUIDS[1], ("fp32", "fp16"))):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
        assert CudaBackend().probe().precisions == precisions


def test_amd_through_torchs_rocm_build(machine: Path) -> None:
    install(machine, ROCM_BUILD)
    write(machine, amd(1, 90402))
    probe = CudaBackend().probe()
    assert probe.ready
    assert probe.detail == "AMD gfx942, torch 2.13.0+rocm6.4 with HIP 6.4.4"


def test_not_ready_where_torch_cannot_run(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(machine, CUDA_BUILD.replace("12.8", "13.0").replace("cu128", "cu130"))
    write(machine, gpu(0, "NVIDIA H200") | {"proc/driver/nvidia/version": VERSION})
    probe = CudaBackend().probe()
    assert not probe.ready
    assert probe.detail.startswith("driver 570.86.15 is older than CUDA 13 needs, but torch is built for CUDA 13.0; ")
    install(machine, CUDA_BUILD.replace("12.8", "12.4").replace("cu128", "cu124"))
    blackwell = Found((Card("NVIDIA GeForce RTX 5090", capability=(12, 0)),), "570.86.15", (12, 8))
    monkeypatch.setattr(bertkit_cuda, "find_cards", lambda: blackwell)
    probe = CudaBackend().probe()
    assert not probe.ready
    assert "compute capability 12.0, but torch for CUDA 12.4 has code up to 9.0" in probe.detail


def test_looking_imports_nothing(machine: Path) -> None:
    install(machine, CUDA_BUILD)
    write(machine, gpu(0, "NVIDIA H200"))
    assert CudaBackend().probe().ready
    assert "torch" not in sys.modules
