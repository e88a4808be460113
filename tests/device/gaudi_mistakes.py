"""Thirteen mistakes that ports to Gaudi make, each as a check of the backend and a plant that the check must find.

Run under the stand-in, in one mode: `python gaudi_mistakes.py OUT.json`. A check raises where the mistake is there; the
plant makes it for the length of a `with`. `test_gaudi_mistakes.py` reads what is written.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from bertkit.conformance import CHECKS
from bertkit.conformance.fixtures import RATE, example_batch, gap, job, train, with_settings
from bertkit.conformance.report import configured
from bertkit.distributed.world import World
from bertkit.engine.interface import BatchLimits, Limits, OptimizerSpec, Update, label_counts
from bertkit_gaudi import GaudiBackend

LAZY = os.environ.get("PT_HPU_LAZY_MODE") == "1"
BACKEND = GaudiBackend()
BATCH = example_batch("classification")
LAMB = OptimizerSpec(algorithm="lamb", clip_norm=0.05)
LIMITS = Limits((BatchLimits(12, 40),), (BatchLimits(12, 40),))
ODD = Limits((BatchLimits(5, 43),), (BatchLimits(5, 43),))  # that no other check has, so that it is compiled here


def engine(kind: str = "classification", backend: Any = BACKEND, **changed: Any) -> Any:
    return with_settings(backend, dataclasses.replace(job(kind), limits=LIMITS, **changed))  # type: ignore[arg-type]


def state() -> Any:
    from habana_frameworks import _sim

    return _sim.STATE


def device() -> Any:
    from bertkit_gaudi.device import GaudiDevice

    return GaudiDevice


def passes() -> Any:
    from bertkit_torch.static import StaticPasses

    return StaticPasses


def marks_its_steps() -> None:
    made = engine()
    train(made, BATCH, "classification", 1)
    before = state().mark_steps
    train(made, BATCH, "classification", 4, splits=2, first=2)
    assert state().mark_steps - before >= 4 * (2 + 1), state().mark_steps - before
    made.synchronize()
    assert state().pending == 0, state().pending


def compiles_nothing_more() -> None:
    CHECKS["static_shapes"](BACKEND)


def the_last_batch_has_a_planned_size() -> None:
    made = engine()
    train(made, BATCH, "classification", 1)
    for count in (12, 5):  # the last of an epoch is smaller
        some = example_batch("classification", count)
        made.train_step(Update(2, (some,), label_counts("classification", [some])), RATE)
    assert made.passes.plan.late == 0, made.passes.plan.late


def waits_for_nothing() -> None:
    CHECKS["host_waits"](BACKEND)


def nothing_comes_from_the_host() -> None:
    made = engine()
    train(made, BATCH, "classification", 1)
    before = state().implicit_h2d
    train(made, BATCH, "classification", 2, first=2)
    assert state().implicit_h2d == before, "host tensors in device operators"


def autocast_is_in_force() -> None:
    logits = [engine(precision=precision).predict(BATCH)["logits"] for precision in ("fp32", "bf16")]
    assert gap({"": logits[0]}, {"": logits[1]}) > 0, "bf16 computes what fp32 does"
    wanted = job("classification", precision="bf16")
    made = with_settings(BACKEND, wanted)
    loss = made.train_step(Update(1, (BATCH,), {"sequences": 12}), RATE)["loss"]
    assert str(loss.dtype) == "torch.float32"


def a_process_has_device_0() -> None:
    from bertkit_gaudi.gaudi_config import GaudiConfig

    world = World(3, 8, 3, 8, "torchrun", "localhost:12345")
    kept = dict(os.environ)
    try:
        os.environ.pop("HLS_MODULE_ID", None)
        where = device()({"PT_HPU_LAZY_MODE": "1" if LAZY else "0"}, GaudiConfig()).open(job("classification"), world)
        module = os.environ["HLS_MODULE_ID"]
    finally:
        os.environ.clear()
        os.environ.update(kept)
    import torch

    assert torch.zeros(1, device=where).device == torch.device("hpu", 0)
    assert module == "3", module


def fused_optimizers_get_our_values_and_clip_once() -> None:
    made = engine(optimizer=LAMB)
    before = state().fused["FusedClipNorm"]
    said = float(made.train_step(Update(1, (BATCH,), {"sequences": 12}), RATE)["grad_norm"])
    assert state().fused["FusedClipNorm"] == before, "FusedLamb clips by itself"
    assert said > LAMB.clip_norm, "the norm said is the one before clipping"
    adam = engine(optimizer=OptimizerSpec(bias_correction=False, epsilon=1e-7, weight_decay=0.02)).optimizer
    group = adam.optimizer.param_groups[0]
    assert (group["eps"], group["weight_decay"], group["bias_correction"]) == (1e-7, 0.02, False)
    assert all(group["params"] for group in adam.optimizer.param_groups)
    follows = CHECKS["lamb"](BACKEND)
    assert follows


def the_decoder_stays_tied() -> None:
    made = engine("pretraining")
    made.load_state_dict({name: np.array(array) for name, array in made.state_dict().items()})
    batch = example_batch("pretraining")
    before = made.predict(batch)["masked_logits"]
    arrays = {name: np.array(array) for name, array in made.state_dict().items()}
    words = "model.bert.embeddings.word_embeddings.weight"
    arrays[words][300:] = 0.0  # words that the decoder knows and the batch may lack
    made.load_state_dict(arrays)
    after = made.predict(batch)["masked_logits"]
    bias = arrays["model.cls.predictions.bias"][300:]
    assert np.allclose(after[:, 300:], bias, atol=1e-6), "the decoder did not follow the embeddings"
    assert np.abs(before - after).max() > 0


def ranks_differ_where_they_must() -> None:
    from bertkit_gaudi.environment import of_ranks
    from bertkit_torch import engine as module

    keys = [module.stream_key(1, 1, rank, 0).generate_state(2).tolist() for rank in (0, 1)]
    assert keys[0] != keys[1], "two ranks draw the same dropout"
    said = of_ranks(World(9, 16, 1, 8, "Slurm", "10.0.0.1:29500"))
    assert (said["MASTER_ADDR"], said["RANK"], said["LOCAL_RANK"]) == ("10.0.0.1", "9", "1"), said


def captures_without_a_wait() -> None:
    graphed = configured(BACKEND, ["device.graphs=true"])
    made, plain = engine(backend=graphed), engine()
    first = made.predict(BATCH)["logits"].copy()
    losses = [train(one, BATCH, "classification", 4) for one in (made, plain)]
    assert losses[0] == losses[1]
    assert state().replays > 0, "nothing was replayed"
    kept = first.copy()
    made.predict(example_batch("classification", 12, 5))
    assert np.array_equal(first, kept), "an answer changed with the next call"


def checkpoints_are_plain_arrays() -> None:
    made = engine(precision="bf16")
    train(made, BATCH, "classification", 2)
    arrays = made.state_dict()
    assert all(isinstance(array, np.ndarray) for array in arrays.values())
    assert not [name for name in arrays if "_orig_mod" in name]
    other = engine(precision="bf16")
    other.load_state_dict(arrays)
    losses = [train(one, BATCH, "classification", 2, first=3) for one in (made, other)]
    assert losses[0] == losses[1]


def a_layer_is_one_graph() -> None:
    from torch import _dynamo

    _dynamo.reset()  # it gives up on a function after many engines
    before = len(state().compile_calls)
    made = with_settings(BACKEND, dataclasses.replace(job("classification", dropout=True), limits=ODD), shapes=1)
    train(made, example_batch("classification", 5), "classification", 1)
    kinds = [call["kind"] for call in state().compile_calls[before:]]
    # One size, and of it two layers: the last looks only at what the head asks for.
    assert sorted(kinds) == ["backward"] * 2 + ["forward"] * 2, kinds


def recompute_left_to_the_bridge() -> Any:
    from bertkit_gaudi import device as module

    def open_ended(query: Any, key: Any, value: Any, mask: Any, rate: float) -> Any:
        from habana_frameworks.torch.hpex.kernels import FusedSDPA

        bias = query.new_zeros(mask.shape).masked_fill(~mask, float(np.finfo(np.float32).min))
        return FusedSDPA.apply(query, key, value, bias, rate, False, None)

    return patch.dict(module.KERNELS, fused=open_ended)


def nothing_at_boundaries() -> Any:
    return patch.object(device(), "step_boundary", lambda self: None)


def shapes_as_they_come() -> Any:
    def lay_out(self: Any, wanted: Any) -> None:
        self.static, self.flat = False, False

    return patch.object(device(), "lay_out", lay_out)


def exact_sizes() -> Any:
    from bertkit.engine.interface import sequence_lengths
    from bertkit.engine.static_plan import StaticPlan
    from bertkit.engine.static_shapes import shapes_of

    sizes = lambda self, batch, training: next(iter(shapes_of(sequence_lengths(batch), 0)))  # noqa: E731
    return patch.object(StaticPlan, "sizes", sizes)


def reads_the_loss() -> Any:
    learn = passes().learn

    def reading(self: Any, *given: Any) -> int:
        slots = learn(self, *given)
        float(self.total)
        return int(slots)

    return patch.object(passes(), "learn", reading)


def positions_on_the_host() -> Any:
    outputs = passes()._outputs

    def from_host(self: Any, weights: Any, sizes: Any, tensors: Any, drop: Any) -> Any:
        return outputs(self, weights, sizes, {**tensors, "position_ids": tensors["position_ids"].cpu()}, drop)

    return patch.object(passes(), "_outputs", from_host)


def autocast_of_another_device() -> Any:
    import torch

    return patch.object(device(), "autocast", lambda self, precision: torch.autocast("cpu", dtype=torch.bfloat16))


def local_rank_as_index() -> Any:
    return patch.object(device(), "index", lambda self, world: world.local_rank)


def clips_twice() -> Any:
    from bertkit_gaudi import optimizers

    def init(self: Any, parameters: Any, spec: Any, optimizer: Any, clips: bool) -> None:
        held(self, parameters, spec, optimizer, False)

    held = optimizers.Fused.__init__
    return patch.object(optimizers.Fused, "__init__", init)


def a_decoder_of_its_own() -> Any:
    from bertkit_gaudi.weights import AutocastWeights

    cast, copies = AutocastWeights.cast, {}  # type: ignore[var-annotated]

    def untied(self: Any, *names: str) -> Any:
        found = cast(self, *names)
        return copies.setdefault(names, found.detach().clone()) if "word_embeddings" in names[0] else found

    return patch.object(AutocastWeights, "cast", untied)


def the_same_seed_everywhere() -> Any:
    from bertkit_torch import engine as module

    key = module.stream_key
    return patch.object(module, "stream_key", lambda seed, step, rank, number: key(seed, step, 0, number))


def a_wait_within() -> Any:
    from bertkit_torch import static as module

    held = module.backward

    def waiting(value: Any, scaler: Any) -> None:
        float(value)
        held(value, scaler)

    return patch.object(module, "backward", waiting)


def names_of_a_compiled_module() -> Any:
    from bertkit_torch.engine import TorchEngine

    weights = TorchEngine.weights
    return patch.object(TorchEngine, "weights", lambda self: {f"_orig_mod.{n}": a for n, a in weights(self).items()})


Check = Callable[[], None]
Plant = Callable[[], AbstractContextManager[Any]]
# mistake -> (what must hold, how the mistake is made, only in this mode)
MISTAKES: dict[str, tuple[Check, Plant, str]] = {
    "1 mark_step forgotten": (marks_its_steps, nothing_at_boundaries, "lazy"),
    "2 dynamic shapes": (compiles_nothing_more, shapes_as_they_come, "lazy"),
    "3 the last batch has a shape of its own": (the_last_batch_has_a_planned_size, exact_sizes, ""),
    "4 the loss is read in every update": (waits_for_nothing, reads_the_loss, ""),
    "5 host tensors in the graph": (nothing_comes_from_the_host, positions_on_the_host, ""),
    "6 autocast of another device": (autocast_is_in_force, autocast_of_another_device, ""),
    "7 hpu:<local rank>": (a_process_has_device_0, local_rank_as_index, ""),
    "8 fused optimizers used like torch's": (fused_optimizers_get_our_values_and_clip_once, clips_twice, ""),
    "9 the tied decoder comes loose": (the_decoder_stays_tied, a_decoder_of_its_own, ""),
    "10 ranks that do not know who they are": (ranks_differ_where_they_must, the_same_seed_everywhere, ""),
    "11 a wait within a captured graph": (captures_without_a_wait, a_wait_within, "lazy"),
    "12 checkpoints that need a Gaudi": (checkpoints_are_plain_arrays, names_of_a_compiled_module, ""),
    "13 a graph break in each layer": (a_layer_is_one_graph, recompute_left_to_the_bridge, "eager"),
}


def outcome(check: Check) -> str:
    try:
        check()
    except Exception:
        return traceback.format_exc()
    return ""


def main(out: Path) -> None:
    found = {}
    engine()  # the vendor's package is imported with the mode that the environment names
    for name, (check, plant, mode) in MISTAKES.items():
        if mode and (mode == "lazy") != LAZY:  # "lazy" or "eager"
            continue
        kept = outcome(check)
        with ExitStack() as planted:
            planted.enter_context(plant())
            found[name] = {"kept": kept, "planted": outcome(check)}
    out.write_text(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("BERTKIT_CACHE", tempfile.gettempdir())
    main(Path(sys.argv[1]))
