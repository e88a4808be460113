"""Our BERT against Hugging Face's: the same logits, losses and gradients from the same weights, in every layout.

Legend: B sequences, S longest, T tokens.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.conformance.fixtures import HEADS, example_batch, first_moments, gap, part, with_settings
from bertkit.data.tasks import find_task
from bertkit.data.tasks.reading import read_split
from bertkit.data.tasks.task import Shape
from bertkit.engine.interface import Batch, Job, OptimizerSpec, Update, label_counts
from bertkit.errors import UserError
from bertkit.files.disk import write_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import initial
from bertkit.training.schedule import schedule

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LAYOUTS = ("padded", "unpadded", "packed")
MODEL = ModelConfig(64, 3, 4, 128, vocab_size=400, max_position_embeddings=64).without_dropout()
AUTO = {
    "classification": "BertForSequenceClassification",
    "multilabel": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "choice": "BertForMultipleChoice",
    "tokens": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
    "pretraining": "BertForPreTraining",
}


PROBLEMS = {"multilabel": "multi_label_classification", "regression": "regression"}
CASES = [(kind, HEADS[kind].outputs) for kind in AUTO] + [("regression", 3)]


def engine_for(
    config: ModelConfig,
    head: Head,
    weights: Any,
    layout: Any = "auto",
    precision: Any = "fp32",
    clip_norm: float = 0.0,
) -> Any:
    from bertkit_cpu import CpuBackend

    optimizer = OptimizerSpec(clip_norm=clip_norm)
    return with_settings(CpuBackend(), Job(config, head, weights, optimizer, precision, layout=layout))


def labelled(head: Head) -> Batch:
    """A batch with labels of the head's shape."""
    batch = example_batch(head.kind)
    if head.kind != "regression" or not head.label_shape:
        return batch
    shape = (len(batch["labels"]), *head.label_shape)
    return {**batch, "labels": np.random.default_rng(1).normal(size=shape).astype(np.float32)}


def padded(batch: Batch) -> dict[str, Any]:
    """The ragged batch as transformers wants it."""
    lengths = np.diff(batch["cu_seqlens"])
    shape = (len(lengths), int(lengths.max()))
    ids, types, mask = (np.zeros(shape, np.int64) for _ in range(3))
    for row, (start, length) in enumerate(zip(batch["cu_seqlens"], lengths, strict=False)):
        ids[row, :length] = batch["input_ids"][start : start + length]
        types[row, :length] = batch["token_type_ids"][start : start + length]
        mask[row, :length] = 1
    return {
        "input_ids": torch.from_numpy(ids),
        "token_type_ids": torch.from_numpy(types),
        "attention_mask": torch.from_numpy(mask),
    }


def theirs(config: ModelConfig, head: Head, weights: Any) -> Any:
    """Hugging Face's model with our weights in it; every name must fit."""
    made = transformers.BertConfig(
        **dataclasses.asdict(config), num_labels=head.outputs, attn_implementation="eager",
        problem_type=PROBLEMS.get(head.kind),
    )  # fmt: skip
    model = getattr(transformers, AUTO[head.kind])(made)
    state = {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    assert not [name for name in missing if name not in tied and "position_ids" not in name and "pooler" not in name]
    if head.kind == "pretraining":
        model.tie_weights()
    return model.train()  # dropout is 0 in the config


def their_labels(kind: str, batch: Batch, shape: Any) -> dict[str, Any]:
    if kind == "span":
        return {n: torch.from_numpy(batch[n]) for n in ("start_positions", "end_positions")}
    if kind not in ("pretraining", "tokens"):
        return {"labels": torch.from_numpy(batch["labels"])}
    labels = torch.full(shape, -100)
    starts = batch["cu_seqlens"]
    if kind == "tokens":
        for row, (start, end) in enumerate(itertools.pairwise(starts)):
            labels[row, : end - start] = torch.from_numpy(batch["token_labels"][start:end])
        return {"labels": labels}
    for position, label in zip(batch["masked_positions"], batch["masked_labels"], strict=True):
        row = int(np.searchsorted(starts, position, side="right")) - 1
        labels[row, int(position) - int(starts[row])] = int(label)
    return {"labels": labels, "next_sentence_label": torch.from_numpy(batch["labels"])}


def their_loss(kind: str, model: Any, inputs: dict[str, Any], batch: Batch) -> Any:
    """Hugging Face's own loss; for spans from its logits, since its loss lets padding take part in the softmax."""
    if kind == "choice":
        inputs = {name: rows.view(len(batch["labels"]), -1, rows.shape[1]) for name, rows in inputs.items()}
    if kind != "span":
        return model(**inputs, **their_labels(kind, batch, inputs["input_ids"].shape)).loss
    output, padding = model(**inputs), inputs["attention_mask"] == 0
    labels = their_labels(kind, batch, None)
    ends = (output.start_logits, labels["start_positions"]), (output.end_logits, labels["end_positions"])
    losses = [
        torch.nn.functional.cross_entropy(logits.masked_fill(padding, -torch.inf), place) for logits, place in ends
    ]
    return sum(losses) / 2


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "outputs"), CASES)
def test_loss_and_gradients_equal_hugging_faces(kind: Any, outputs: int, layout: str) -> None:
    head = Head(kind, outputs)
    weights = initial(MODEL, head, 5)
    for name in weights:  # biases and scales that are not at their neutral start
        weights[name] = weights[name] + np.float32(0.05) * np.sin(
            np.arange(weights[name].size, dtype=np.float32)
        ).reshape(weights[name].shape)
    batch = labelled(head)
    model = theirs(MODEL, head, weights)
    inputs = padded(batch)
    loss = their_loss(kind, model, inputs, batch)
    loss.backward()
    ours = engine_for(MODEL, head, weights, layout)
    scalars = ours.train_step(Update(1, (batch,), label_counts(kind, [batch])), 0.0)
    assert float(scalars["loss"]) == pytest.approx(float(loss.detach()), abs=2e-6)
    moments = first_moments(ours)
    compared = 0
    for name, parameter in model.named_parameters():
        if f"adam.first.{name}" in moments:
            gradient = moments[f"adam.first.{name}"] / (1 - 0.9)
            assert np.abs(gradient - parameter.grad.numpy()).max() < 2e-6, name
            compared += 1
    assert compared == len(weights)


@pytest.mark.parametrize(("kind", "outputs"), [("multilabel", 4), ("regression", 3), ("choice", 3), ("tokens", 5)])
def test_several_labels_do_not_depend_on_the_split(kind: Any, outputs: int) -> None:
    head = Head(kind, outputs)
    batch, weights = labelled(head), initial(MODEL, head, 5)
    found = []
    for splits in (1, 3):
        ours = engine_for(MODEL, head, weights)
        places = np.array_split(np.arange(len(batch["example_ids"])), splits)
        micro = tuple(part(batch, some) for some in places)
        loss = float(ours.train_step(Update(1, micro, label_counts(kind, [batch])), 1e-3)["loss"])
        found.append((loss, first_moments(ours)))
    assert found[0][0] == pytest.approx(found[1][0], abs=2e-6)
    assert gap(found[0][1], found[1][1]) < 2e-6


@pytest.mark.parametrize(("kind", "outputs"), [("multilabel", 4), ("regression", 3)])
def test_transformers_takes_the_folder_for_what_it_is(kind: Any, outputs: int, tmp_path: Path) -> None:
    """Class, problem type and labels from config.json; the same logits."""
    head, names = Head(kind, outputs), tuple(f"name {number}" for number in range(outputs))
    weights = initial(MODEL, head, 5)
    (tmp_path / "config.json").write_text(json.dumps(to_mapping(MODEL, head, names)))
    write_arrays(tmp_path / "model.safetensors", weights, {"format": "pt"})
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert (model.config.problem_type, model.config.num_labels) == (PROBLEMS[kind], outputs)
    assert [model.config.id2label[number] for number in range(outputs)] == list(names)
    batch = labelled(head)
    with torch.no_grad():
        wanted = model(**padded(batch)).logits.numpy()
    assert np.abs(engine_for(MODEL, head, weights).predict(batch)["logits"] - wanted).max() < 1e-5


WANTED = ((3,), (0,), (3, 2, 1, 0), (1, 3))  # layers of MODEL


def their_hidden(config: ModelConfig, weights: Any, batch: Batch, layers: tuple[int, ...]) -> Any:
    """(T, K H): transformers' hidden states of these layers side by side, without padding."""
    made = transformers.BertConfig(**dataclasses.asdict(config), attn_implementation="eager")
    model = transformers.BertModel(made, add_pooling_layer=False).eval()
    model.load_state_dict(
        {name.removeprefix("bert."): torch.from_numpy(np.array(array)) for name, array in weights.items()}
    )
    inputs = padded(batch)
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
    return torch.cat([states[number] for number in layers], 2)[inputs["attention_mask"] == 1].numpy()


@pytest.mark.parametrize("layers", WANTED, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_equal_hugging_faces(layout: str, layers: tuple[int, ...]) -> None:
    head = Head("encoder", len(layers) * MODEL.hidden_size, layers)
    weights, batch = initial(MODEL, head, 5), example_batch("encoder")
    wanted = their_hidden(MODEL, weights, batch, layers)
    found = engine_for(MODEL, head, weights, layout).predict(batch)["hidden"]
    assert found.shape == wanted.shape == (len(batch["input_ids"]), head.outputs)
    assert np.abs(found - wanted).max() < 1e-5


def test_hidden_states_are_not_trained() -> None:
    head = Head("encoder", MODEL.hidden_size, (3,))
    engine = engine_for(MODEL, head, initial(MODEL, head, 5))
    with pytest.raises(UserError, match="hidden states have no loss to train with; train another head"):
        engine.train_step(Update(1, (example_batch("encoder"),), {"sequences": 12}), 1e-3)


def test_padding_takes_part_in_hugging_faces_span_loss() -> None:
    """Their loss is larger than ours by log(1 + padding / tokens), each a sum of exp(logit); docs/comparability.md."""
    head, kind = Head("span", 2), "span"
    weights = initial(MODEL, head, 5)
    batch = example_batch(kind)
    model, inputs = theirs(MODEL, head, weights), padded(batch)
    padding = inputs["attention_mask"] == 0
    assert padding.any()
    with torch.no_grad():
        output = model(**inputs, **their_labels(kind, batch, None))
        ours = float(their_loss(kind, model, inputs, batch))
    excess = []
    for logits in (output.start_logits, output.end_logits):
        mass = logits.double().exp()
        shares = mass.masked_fill(~padding, 0).sum(1) / mass.masked_fill(padding, 0).sum(1)
        excess.append(shares.log1p().mean())
    assert float(output.loss) > ours + 1e-3
    assert float(output.loss) - ours == pytest.approx(float(sum(excess) / 2), abs=1e-5)


def test_tanh_gelu_equals_hugging_faces() -> None:
    config = dataclasses.replace(MODEL, hidden_act="gelu_new")
    head = Head("classification", 2)
    weights = initial(config, head, 2)
    batch = example_batch("classification")
    with torch.no_grad():
        expected = theirs(config, head, weights)(**padded(batch)).logits.numpy()
    assert np.abs(engine_for(config, head, weights).predict(batch)["logits"] - expected).max() < 1e-6


@pytest.fixture(scope="module")
def mrpc(real_data: Path) -> Any:
    """(source, features of MRPC's dev set, starting weights) of the real encoder."""
    source = find_source(str(real_data / "minilm"))
    (part,) = read_split(find_task("mrpc"), real_data / "glue", "dev", source.vocabulary, Shape(128))
    return source, part.features, starting_weights(source, Head("classification", 2), 1)


@pytest.mark.slow_but("unpadded")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_logits_of_a_real_encoder(mrpc: Any, layout: str) -> None:
    """fp32: equal to transformers' to 1e-5 over 64 real pairs of sentences, in every layout."""
    source, features, fit = mrpc
    head = Head("classification", 2)
    batch = features.batch(np.arange(64))
    with torch.no_grad():
        expected = theirs(source.config, head, fit.weights).eval()(**padded(batch)).logits.numpy()
    found = engine_for(source.config, head, fit.weights, layout).predict(batch)["logits"]
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.slow_but("unpadded")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_hidden_states_of_a_real_encoder(mrpc: Any, layout: str) -> None:
    """fp32: equal to transformers' to 1e-5 in the last four layers, in every layout."""
    source, features, _ = mrpc
    layers = tuple(range(source.config.num_hidden_layers, source.config.num_hidden_layers - 4, -1))
    head = Head("encoder", 4 * source.config.hidden_size, layers)
    fit, batch = starting_weights(source, head, 1), features.batch(np.arange(32))
    found = engine_for(source.config, head, fit.weights, layout).predict(batch)["hidden"]
    assert np.abs(found - their_hidden(source.config, fit.weights, batch, layers)).max() < 1e-5


def test_bf16_logits_of_a_real_encoder_stay_near_fp32(mrpc: Any) -> None:
    """bf16 keeps 8 bits of mantissa; through 6 layers logits of about 0.3 move by 0.05 at the most."""
    from bertkit_cpu import CpuBackend

    if "bf16" not in CpuBackend().probe().precisions:
        pytest.skip("this CPU has no native bf16")
    source, features, fit = mrpc
    head = Head("classification", 2)
    batch = features.batch(np.arange(64))
    fp32, bf16 = (
        engine_for(source.config, head, fit.weights, precision=precision).predict(batch)["logits"]
        for precision in ("fp32", "bf16")
    )
    difference = np.abs(fp32 - bf16).max()
    assert 0 < difference < 0.05


def norm(arrays: Iterable[np.ndarray]) -> float:
    return float(np.sqrt(sum(float((array**2).sum()) for array in arrays)))


@pytest.fixture(scope="module")
def five_updates_at_once(mrpc: Any) -> Any:
    """Weights after 5 updates of 32 sequences at once, unpadded, dropout off, fp32."""
    return weights_after_five(mrpc, "unpadded", 1)


def weights_after_five(mrpc: Any, layout: str, micro_batches: int) -> Any:
    source, features, fit = mrpc
    engine = engine_for(source.config.without_dropout(), Head("classification", 2), fit.weights, layout)
    for step in range(1, 6):
        examples = np.arange(32) + 32 * (step - 1)
        micro = tuple(features.batch(some) for some in np.array_split(examples, micro_batches))
        engine.train_step(Update(step, micro, {"sequences": 32}), 5e-5)
    return engine.weights()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_five_updates_of_a_real_encoder_do_not_depend_on_the_split(
    mrpc: Any, five_updates_at_once: Any, layout: str
) -> None:
    """1 x 32 and 4 micro-batches of 8 in any layout: the same weights after 5 updates.

    AdamW divides a gradient by its own size, so where that is as small as its rounding a weight moves by a share of the
    rate, 5e-5, that depends on how the kernels sum: on a CPU with AMX 1 of 22.7 million differs by 1.07e-6, the next by
    0.8e-6. What the weights moved by differs by 1e-5 of its norm.
    """
    split = weights_after_five(mrpc, layout, 4)
    differences = {name: split[name].astype(np.float64) - five_updates_at_once[name] for name in split}
    moved = [five_updates_at_once[name].astype(np.float64) - start for name, start in mrpc[2].weights.items()]
    assert max(float(np.abs(each).max()) for each in differences.values()) < 2e-6
    assert sum(int((np.abs(each) > 1e-6).sum()) for each in differences.values()) <= 2
    assert norm(differences.values()) < 3e-5 * norm(moved)


def test_forty_updates_are_those_of_hugging_faces_trainer() -> None:
    """Its AdamW over its two groups of parameters, clipping and linear schedule with warm-up, written out."""
    head, updates, peak, most = Head("classification", 2), 40, 2e-3, 0.5
    weights, stream = initial(MODEL, head, 5), np.random.default_rng(3)
    batch = example_batch("classification")
    ours = engine_for(MODEL, head, weights, clip_norm=most)
    rate = schedule("linear", peak, warmup=4, steps=updates)
    model = theirs(MODEL, head, weights)
    decayed = set(transformers.trainer_pt_utils.get_parameter_names(model, [torch.nn.LayerNorm], ["bias"]))
    groups = [
        {"params": [p for name, p in model.named_parameters() if (name in decayed) == some], "weight_decay": decay}
        for some, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=peak)
    their_rate = transformers.get_linear_schedule_with_warmup(optimizer, 4, updates)
    losses, clipped = [], 0
    for step in range(1, updates + 1):
        batch = {**batch, "labels": stream.integers(0, 2, len(batch["labels"]))}
        scalars = ours.train_step(Update(step, (batch,), label_counts("classification", [batch])), rate(step))
        loss = their_loss("classification", model, padded(batch), batch)
        loss.backward()
        clipped += int(torch.nn.utils.clip_grad_norm_(model.parameters(), most) > most)
        optimizer.step()
        their_rate.step()
        optimizer.zero_grad()
        losses.append((float(scalars["loss"]), float(loss.detach())))
    assert 5 < clipped < updates - 5
    assert np.abs(np.diff(losses)).max() < 1e-4, losses
    moved = {name: model.get_parameter(name).detach().numpy() - weights[name] for name in weights}
    differences = {name: array - weights[name] - moved[name] for name, array in ours.weights().items()}
    assert norm(differences.values()) < 1e-3 * norm(moved.values())
