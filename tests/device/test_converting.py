"""What torch and transformers make of converted checkpoints, and the files that training scripts save with torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.files.disk import read_arrays
from bertkit.model.config import Head, ModelConfig, to_mapping
from bertkit.model.formats.convert import convert
from bertkit.model.formats.names import in_dialect
from bertkit.model.formats.tf1_bundle import read_bundle, read_index
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import initial
from bertkit.model.vocabulary import SPECIAL

torch = pytest.importorskip("torch")
CONFIG = ModelConfig(8, 2, 2, 16, vocab_size=13, max_position_embeddings=6)
HEAD = Head("pretraining", 2)
ROWS = "bert.embeddings.word_embeddings.weight"


def made(folder: Path, head: Head = HEAD) -> dict[str, np.ndarray]:
    """Configuration and vocabulary in `folder`; weights that belong to them, which half precision rounds."""
    folder.mkdir(exist_ok=True)
    (folder / "bert_config.json").write_text(json.dumps(to_mapping(CONFIG, head, ())))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *(f"word{n}" for n in range(8))]))
    return {name: array + np.float32(0.1) for name, array in initial(CONFIG, head, 1).items()}


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}


def saved(folder: Path, dialect: str = "nvidia", prefix: str = "", **beside: Any) -> dict[str, np.ndarray]:
    """`ckpt_7.pt` as a script of theirs saves it; the weights by our names."""
    weights = made(folder)
    state = {prefix + in_dialect(name, dialect): tensor for name, tensor in tensors(weights).items()}
    state[f"{prefix}cls.predictions.decoder.weight"] = state[prefix + ROWS]
    torch.save({"model": state, **beside}, folder / "ckpt_7.pt")
    return weights


def in_folder(folder: Path) -> dict[str, np.ndarray]:
    return read_arrays(folder / "model.safetensors")[0]


def equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def logits_by_the_book(v: dict[str, np.ndarray], ids: np.ndarray, layers: int, heads: int) -> list[np.ndarray]:
    """Google's BERT in float64, straight from its variables, on one unpadded row: MLM and next-sentence logits."""
    from scipy.special import erf, softmax

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return np.asarray(x @ v[f"{name}/kernel"] + v[f"{name}/bias"])

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        spread = np.sqrt(x.var(-1, keepdims=True) + 1e-12)
        return np.asarray((x - x.mean(-1, keepdims=True)) / spread * v[f"{name}/gamma"] + v[f"{name}/beta"])

    def gelu(x: np.ndarray) -> np.ndarray:
        return np.asarray(x * 0.5 * (1 + erf(x / np.sqrt(2))))

    e = "bert/embeddings"
    x = v[f"{e}/word_embeddings"][ids] + v[f"{e}/position_embeddings"][: len(ids)] + v[f"{e}/token_type_embeddings"][0]
    x = norm(f"{e}/LayerNorm", x)
    for layer in (f"bert/encoder/layer_{n}" for n in range(layers)):
        q, k, value = (
            dense(f"{layer}/attention/self/{part}", x).reshape(len(ids), heads, -1).swapaxes(0, 1)
            for part in ("query", "key", "value")
        )
        mixed = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), -1) @ value
        flat = mixed.swapaxes(0, 1).reshape(len(ids), -1)
        x = norm(f"{layer}/attention/output/LayerNorm", x + dense(f"{layer}/attention/output/dense", flat))
        inner = gelu(dense(f"{layer}/intermediate/dense", x))
        x = norm(f"{layer}/output/LayerNorm", x + dense(f"{layer}/output/dense", inner))
    c = "cls/predictions"
    hidden = norm(f"{c}/transform/LayerNorm", gelu(dense(f"{c}/transform/dense", x)))
    pooled = np.tanh(dense("bert/pooler/dense", x[0]))
    s = "cls/seq_relationship"
    return [
        hidden @ v[f"{e}/word_embeddings"].T + v[f"{c}/output_bias"],
        pooled @ v[f"{s}/output_weights"].T + v[f"{s}/output_bias"],
    ]


def test_transformers_computes_googles_logits(real_data: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    source = real_data / "tf1" / "keras_bert_fixture"
    convert(source, tmp_path / "hf")
    model, info = transformers.AutoModelForPreTraining.from_pretrained(tmp_path / "hf", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    ids = np.array([2, 5, 8, 11, 6, 3])
    with torch.no_grad():
        out = model.double().eval()(torch.from_numpy(ids[None]))
    variables = {
        name: array.astype(np.float64) for name, array in read_bundle(read_index(source / "bert_model.ckpt")).items()
    }
    mlm, nsp = logits_by_the_book(variables, ids, 2, 4)
    np.testing.assert_allclose(out.prediction_logits[0].numpy(), mlm, rtol=0, atol=1e-9)
    np.testing.assert_allclose(out.seq_relationship_logits[0].numpy(), nsp, rtol=0, atol=1e-9)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "hf").tokenize("All work") == ["all", "work"]


@pytest.mark.parametrize(("dialect", "prefix"), [("nvidia", ""), ("mlperf", ""), ("nvidia", "module.")])
def test_a_training_scripts_file_goes_there_and_back(dialect: str, prefix: str, tmp_path: Path) -> None:
    weights = saved(tmp_path / "theirs", dialect, prefix, epoch=1, files=["a", "b"])
    report = convert(tmp_path / "theirs" / "ckpt_7.pt", tmp_path / "hf")
    assert report.notes == ("left out: epoch", "left out: files")
    assert equal(in_folder(tmp_path / "hf"), weights)
    report = convert(tmp_path / "hf", tmp_path / "back" / "x.pt", dialect)
    assert report.notes == ("added: 3 rows of zeros to the vocabulary, to a multiple of 8",)
    state = torch.load(tmp_path / "back" / "x.pt", weights_only=True)["model"]
    theirs = torch.load(tmp_path / "theirs" / "ckpt_7.pt", weights_only=True)["model"]
    assert state.keys() == {name.removeprefix(prefix) for name in theirs}
    assert state[ROWS].shape == (16, 8)
    assert state["cls.predictions.decoder.weight"].data_ptr() == state[ROWS].data_ptr()
    assert (state[ROWS][13:] == 0).all()
    convert(tmp_path / "back", tmp_path / "again")  # a folder with one .pt, its configuration and vocabulary
    assert equal(in_folder(tmp_path / "again"), weights)


def test_a_file_of_fused_attention_is_read(tmp_path: Path) -> None:
    weights = made(tmp_path)
    fused = {
        "self.query.": "multi_head_attention.q_", "self.key.": "multi_head_attention.k_",
        "self.value.": "multi_head_attention.v_", "attention.output.dense.": "attention.multi_head_attention.out_proj_",
        "attention.output.LayerNorm.": "attention.layer_norm.",
    }  # fmt: skip
    state = {}
    for name, tensor in tensors(weights).items():
        for plain, theirs in fused.items():
            name = name.replace(plain, theirs)
        state[name] = tensor
    assert len(set(state) - set(weights)) == 20
    torch.save({"model": state}, tmp_path / "x.pt")
    convert(tmp_path / "x.pt", tmp_path / "hf")
    assert equal(in_folder(tmp_path / "hf"), weights)


def optimizer(weights: dict[str, np.ndarray], turned: bool = False) -> dict[str, Any]:
    """The state of an optimizer with two groups, as torch numbers it: 7 updates taken."""
    groups: list[list[str]] = [[], []]
    for name in weights:
        groups["bias" in name or "LayerNorm" in name].append(name)
    order = groups[0] + groups[1]
    state = {
        number: {"exp_avg": torch.from_numpy(weights[name] * 2), "exp_avg_sq": torch.from_numpy(weights[name] * 3)}
        for number, name in enumerate(order)
    }
    if turned:
        state[0], state[1] = state[1], state[0]
    numbers = iter(range(len(order)))
    return {
        "state": state,
        "param_groups": [{"params": [next(numbers) for _ in names], "step": torch.tensor([7])} for names in groups],
    }


def test_moments_find_their_weights(tmp_path: Path) -> None:
    weights = made(tmp_path / "theirs")
    saved(tmp_path / "theirs", optimizer=optimizer(weights))
    source = tmp_path / "theirs" / "ckpt_7.pt"
    assert convert(source, tmp_path / "plain").notes == ("left out: optimizer",)
    assert convert(source, tmp_path / "hf", moments=True).moments == 2 * len(weights) + 1
    moments = read_arrays(tmp_path / "hf" / "moments.safetensors")[0]
    assert float(moments["adam.step"]) == 7
    for name, array in weights.items():
        assert np.array_equal(moments[f"adam.first.{name}"], array * 2)
        assert np.array_equal(moments[f"adam.second.{name}"], array * 3)
    (note,) = convert(tmp_path / "hf", tmp_path / "y.pt", "mlperf", moments=True).notes[:1]
    assert note.startswith("left out: the moments")


def test_moments_that_do_not_fit_are_left_out_by_name(tmp_path: Path) -> None:
    weights = made(tmp_path / "theirs")
    saved(tmp_path / "theirs", optimizer=optimizer(weights, turned=True))
    notes = convert(tmp_path / "theirs" / "ckpt_7.pt", tmp_path / "hf", moments=True).notes
    assert f"moments left out: exp_avg 0 is (6, 8), but {ROWS} is (13, 8)" in notes
    assert not (tmp_path / "hf" / "moments.safetensors").exists()


@pytest.mark.parametrize("mixed", [False, True])
def test_float32_masters_are_taken_where_they_are_the_weights(mixed: bool, tmp_path: Path) -> None:
    weights = made(tmp_path)
    order = sorted(weights, key=lambda name: "bias" in name or "LayerNorm" in name)
    masters = [torch.from_numpy(weights[name]) for name in order]
    if mixed:
        masters[3], masters[5] = masters[5], masters[3]  # query and value: of one shape
    state = {name: tensor.half().float() for name, tensor in tensors(weights).items()}
    torch.save({"model": state, "master params": masters}, tmp_path / "x.pt")
    notes = convert(tmp_path / "x.pt", tmp_path / "hf").notes
    found = in_folder(tmp_path / "hf")
    assert equal(found, weights) is not mixed
    assert notes == (("left out: master params",) if mixed else ("weights: the float32 ones of `master params`",))


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    weights = {name: array.astype(np.float16) for name, array in made(tmp_path).items()}
    torch.save(tensors(weights), tmp_path / "x.pt")  # a bare state dict
    convert(tmp_path / "x.pt", tmp_path / "hf")
    assert equal(in_folder(tmp_path / "hf"), weights)
    convert(tmp_path / "hf", tmp_path / "tf" / "half.ckpt")
    assert read_bundle(read_index(tmp_path / "tf" / "half.ckpt"))["bert/pooler/dense/bias"].dtype == np.float16


def test_a_pt_file_starts_a_model_directly(tmp_path: Path) -> None:
    weights = saved(tmp_path)
    source = find_source(str(tmp_path / "ckpt_7.pt"))
    fit = starting_weights(source, HEAD, 1)
    assert (fit.missing, fit.unexpected, fit.reshaped) == ((), (), ())
    assert equal(dict(fit.weights), weights)


def test_a_file_that_joins_two_models_is_refused(tmp_path: Path) -> None:
    made(tmp_path)
    one = torch.ones(8)
    torch.save({"bert.pooler.dense.bias": one, "module.bert.pooler.dense.bias": one}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"module.bert.pooler.dense.bias and another tensor are both"):
        convert(tmp_path / "x.pt", tmp_path / "hf")


@pytest.mark.parametrize("content", [[1, 2], {"model": {"a": 1}}, {"model": [torch.ones(1)]}])
def test_a_file_without_a_state_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x.pt: holds no state dict of tensors"):
        convert(tmp_path / "x.pt", tmp_path / "hf")


def test_the_small_real_files_convert(real_data: Path, tmp_path: Path) -> None:
    """Their configuration is not with them: it is made from the shapes."""
    source = real_data / "hf_fixtures" / "camphr_bert-test"
    with pytest.raises(UserError, match=r"no config\.json"):
        convert(source, tmp_path / "hf")
    state = torch.load(source / "pytorch_model.bin", weights_only=True)
    named = {name.removeprefix("bert."): tuple(tensor.shape) for name, tensor in state.items()}
    layers = 1 + max(int(name.split(".")[2]) for name in named if name.startswith("encoder.layer."))
    config = {
        "vocab_size": named["embeddings.word_embeddings.weight"][0],
        "max_position_embeddings": named["embeddings.position_embeddings.weight"][0],
        "type_vocab_size": named["embeddings.token_type_embeddings.weight"][0],
        "hidden_size": named["pooler.dense.bias"][0],
        "intermediate_size": named["encoder.layer.0.intermediate.dense.bias"][0],
        "num_hidden_layers": layers,
        "num_attention_heads": 1,
    }
    (tmp_path / "c.json").write_text(json.dumps(config))
    convert(source, tmp_path / "tf.ckpt", config=str(tmp_path / "c.json"))
    convert(tmp_path / "tf.ckpt", tmp_path / "hf")
    found = {name.removeprefix("bert."): array for name, array in in_folder(tmp_path / "hf").items()}
    for name, tensor in state.items():
        plain = name.removeprefix("bert.")
        if plain in found:
            assert found[plain].tobytes() == tensor.numpy().tobytes(), name
    assert len(found) > 20
