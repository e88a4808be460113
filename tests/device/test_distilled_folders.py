"""Folders as NVIDIA's programs for distillation leave a student: padded rows, their keys, their projection."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bertkit.errors import UserError
from bertkit.model.config import Head, ModelConfig
from bertkit.model.formats.projection import kept_projection
from bertkit.model.loading import find_source, starting_weights
from bertkit.model.parameters import PROJECTION, initial
from bertkit.model.vocabulary import SPECIAL

torch = pytest.importorskip("torch")

PIECES, ROWS = 30522, 30528
CONFIG = ModelConfig(24, 4, 12, 96, vocab_size=ROWS)  # 12 heads, as all of the students have
SAID = {
    "distillation": True,
    "distillation_config": {"use_attention_scores": False, "use_pred_states": True, "attention_loss": "kld"},
    "output_all_encoded_layers": False,
    "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu", "hidden_dropout_prob": 0.1, "hidden_size": 24,
    "initializer_range": 0.02, "intermediate_size": 96, "max_position_embeddings": 512, "num_attention_heads": 12,
    "num_hidden_layers": 4, "type_vocab_size": 2, "vocab_size": ROWS,
}  # fmt: skip
HEADS = [(Head("classification", 2), True), (Head("span", 2), False)]  # of SST-2 and of SQuAD, and whether it pools


def student(folder: Path, head: Head, **more: Any) -> dict[str, np.ndarray]:
    """Write the folder; its weights in our names."""
    weights = initial(CONFIG, head, 3)
    theirs = {
        name.replace(".intermediate.dense.", ".intermediate.dense_act.").replace("pooler.dense.", "pooler.dense_act."):
            torch.from_numpy(array.copy())
        for name, array in weights.items()
    }  # fmt: skip
    torch.save(theirs, folder / "pytorch_model.bin")
    pieces = [*SPECIAL, *(f"word{n}" for n in range(PIECES - len(SPECIAL)))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "config.json").write_text(json.dumps(SAID | more, indent=2, sort_keys=True) + "\n")
    return weights


@pytest.mark.parametrize(("head", "pools"), HEADS, ids=["sst2", "squad"])
def test_a_student_is_read_whole(head: Head, pools: bool, tmp_path: Path) -> None:
    weights = student(tmp_path, head, use_pooler=pools)
    source = find_source(str(tmp_path))
    assert source.config == CONFIG
    assert not [said for said in source.warnings if "not known" in said]
    assert [said for said in source.warnings if "6 more embeddings" in said and "multiple of 8" in said]
    fit = starting_weights(source, head, 1)
    assert not fit.missing
    assert not fit.unexpected
    assert any("pooler" in name for name in weights) == pools
    assert all(np.array_equal(fit.weights[name], array) for name, array in weights.items())


@pytest.mark.parametrize("key", ["distillation", "use_pooler"])
def test_a_value_that_is_neither_true_nor_false_is_refused(key: str, tmp_path: Path) -> None:
    student(tmp_path, Head("span", 2), **{key: "no"})
    with pytest.raises(UserError, match=f"config.json: {key} is 'no'"):
        find_source(str(tmp_path))


def test_its_projection_is_the_one_to_start_from(tmp_path: Path) -> None:
    made = {"fit_dense.weight": torch.randn(48, 24), "fit_dense.bias": torch.randn(48)}
    assert kept_projection(tmp_path, 48, 24) == {}
    torch.save(made, tmp_path / "project.bin")
    found = kept_projection(tmp_path, 48, 24)
    assert found.keys() == {f"{PROJECTION}.weight", f"{PROJECTION}.bias"}
    assert np.array_equal(found[f"{PROJECTION}.weight"], made["fit_dense.weight"].numpy())
    assert kept_projection(tmp_path, 0, 24) == {}, "sizes are equal: none is needed"
    with pytest.raises(UserError, match=r"no fit_dense.weight \(32, 24\)"):
        kept_projection(tmp_path, 32, 24)
