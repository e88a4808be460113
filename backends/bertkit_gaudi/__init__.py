"""The Gaudi backend (Habana Gaudi, Gaudi 2, Gaudi 3): the card. Nothing here imports torch or the vendor's package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from bertkit.plugin import Capabilities, Engine, Job, Precision, Probe, Setting, UserError, World
from bertkit_gaudi import environment
from bertkit_gaudi.cards import GET, find_cards, package_version
from bertkit_gaudi.fit import CURE, misfit, required_torch
from bertkit_gaudi.gaudi_config import GaudiConfig, read_config, with_operators, write_lists
from bertkit_gaudi.generations import supports
from bertkit_torch.build import torch_build
from bertkit_torch.capabilities import EXTRAS, HEADS


class GaudiBackend:
    name = "gaudi"
    aliases: tuple[str, ...] = ("hpu",)
    preference = 40
    capabilities = Capabilities(
        precisions=("fp32", "bf16", "fp16"),
        heads=HEADS,
        layouts=("padded", "packed"),
        extras=EXTRAS,
        environment=environment.FORWARDED,
        gradients=("fp32", "bf16"),
        sharded_optimizer=True,
    )
    settings: Mapping[str, Setting] = {
        "mode": Setting(
            "auto",
            "eager with torch.compile, or the older lazy mode; auto: as PT_HPU_LAZY_MODE says, else eager",
            ("auto", "eager", "lazy"),
        ),
        "compile": Setting("auto", "eager: the encoder layer through torch.compile's hpu_backend", ("auto", "off")),
        "graphs": Setting(False, "lazy: forward and backward of each batch size as one HPU graph"),
        "attention": Setting("fused", "the vendor's FusedSDPA, torch's, or two products", ("fused", "sdpa", "plain")),
        "optimizer": Setting(
            "auto",
            "FusedAdamW adds epsilon before it corrects the bias; auto: take it where the bias is not corrected",
            ("auto", "fused", "exact"),
        ),
        "shapes": Setting(8, "sizes that batches are rounded up to; each is compiled in the warm-up"),
        "recompute": Setting(False, "keep only each layer's input and compute its inside again in backward"),
        "operators": Setting(
            "bridge",
            "which operators autocast takes to bf16: as the bridge has it, or the vendor's MLPerf run, which took more",
            ("bridge", "mlperf"),
        ),
        "gaudi_config": Setting("", "a gaudi_config.json of optimum-habana: operators for autocast, fused parts"),
    }

    def probe(self) -> Probe:
        version = package_version()
        cards = find_cards(Path("/"), os.environ)
        if not version:
            here = f"{len(cards.nodes)} devices, but " if cards.nodes else ""
            return Probe(False, f"{here}habana_frameworks is not installed; {GET}")
        if wrong := unfit("auto"):
            return Probe(False, f"habana_frameworks {version} is installed, but {wrong}; {CURE}")
        if not cards.nodes:
            modules = os.environ.get(environment.MODULES)
            device = f"device of {environment.MODULES}={modules}" if modules else "device"
            return Probe(
                False, f"habana_frameworks {version} is installed, but no {device}; check hl-smi and the driver"
            )
        made = cards.generation
        if made and not supports(made, version):
            return Probe(
                False,
                f"{made.name} ended with software {made.last_software}, this is {version}; use an older container",
            )
        precisions: tuple[Precision, ...] = ("fp32", "bf16", "fp16") if made is None or made.fp16 else ("fp32", "bf16")
        many = f"{len(cards.nodes)} x " if len(cards.nodes) > 1 else ""
        name = f"{made.name} ({cards.product})" if made else "Gaudi"
        return Probe(True, f"{many}{name}, habana_frameworks {version}", precisions, cards.nodes)

    def container_options(self, engine: str) -> tuple[str, ...]:
        """Those of the vendor's documents, for its runtime in Docker. Raises UserError for the others."""
        if engine != "docker":
            raise UserError(
                f"how {engine} shows a container Gaudis is not known", "name it with --container-option, or use docker"
            )
        variables = ("HABANA_VISIBLE_DEVICES=all", "OMPI_MCA_btl_vader_single_copy_mechanism=none")
        return ("--runtime=habana", *(f"--env={one}" for one in variables), "--cap-add=sys_nice", "--ipc=host")

    def variables(self, settings: Mapping[str, str | int | float | bool]) -> Mapping[str, str]:
        config = config_of(settings)
        lists = write_lists(config, cache()) if config.bf16_ops or config.fp32_ops else {}
        return environment.variables(settings, os.environ, lists, cache() / "recipes" / package_version())

    def engine(self, job: Job, world: World) -> Engine:
        if wrong := unfit(str(job.settings.get("mode", "auto"))):
            raise UserError(f"the vendor's package does not load: {wrong}", CURE)
        ours = dict(self.variables(job.settings)) | environment.of_ranks(world)
        os.environ.update(ours)  # before the first import of torch, which reads them
        from bertkit_gaudi.device import GaudiDevice
        from bertkit_torch.engine import TorchEngine

        if job.precision == "fp16" and "fp16" not in self.probe().precisions:
            raise UserError("this Gaudi has no fp16", "use -d bf16")
        return TorchEngine(GaudiDevice(ours, config_of(job.settings)), job, world)


def unfit(mode: str) -> str:
    """Why the installed torch is none for the vendor's package in this mode, in words; "" where it is."""
    build = torch_build()
    return misfit(required_torch(), build.version if build else None, environment.lazy(mode, os.environ))


def config_of(settings: Mapping[str, object]) -> GaudiConfig:
    path = str(settings.get("gaudi_config", ""))
    config = read_config(Path(path).expanduser()) if path else GaudiConfig()
    return with_operators(config, str(settings.get("operators", "bridge")))


def cache() -> Path:
    home = os.environ.get("BERTKIT_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "bertkit" / "gaudi"
