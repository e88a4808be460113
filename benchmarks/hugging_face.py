"""transformers as a competitor: a plain torch loop that does what its Trainer does in each update.

Autocast around the forward pass, backward, clip at 1.0, fused AdamW over Trainer's two groups (no decay on biases and
LayerNorm), gradients set to None. Leaving Trainer itself out spares the peer its callbacks, logging and data loader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from competitors import Competitor

from bertkit.data.features import Features
from bertkit.model.config import Head, ModelConfig, to_mapping

Step = Callable[[np.ndarray], np.ndarray]


def model(one: Competitor, config: ModelConfig, head: Head, weights: Mapping[str, np.ndarray]) -> Any:
    """transformers' model with these weights, in evaluation mode, float32."""
    mapping = to_mapping(config, head, ())
    made = transformers.BertConfig(**mapping, attn_implementation=one.attention or "sdpa")
    kind = transformers.BertForQuestionAnswering if head.kind == "span" else transformers.BertForSequenceClassification
    network = kind(made)
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()}, strict=True)
    return network.eval()


def padded(features: Features, examples: np.ndarray, length: int) -> dict[str, np.ndarray]:
    """(B, L) int64 inputs padded to `length`, or to the longest where that is 0, as a collator makes them."""
    lengths = features.lengths[examples]
    width = length or int(lengths.max())
    mask = np.arange(width) < lengths[:, None]
    batch = features.batch(examples)
    made = {"attention_mask": mask.astype(np.int64)}
    for name in ("input_ids", "token_type_ids"):
        made[name] = np.zeros(mask.shape, np.int64)
        made[name][mask] = batch[name]
    return made


def tensors(features: Features, examples: np.ndarray, length: int) -> dict[str, torch.Tensor]:
    made = padded(features, examples, length) | {name: values[examples] for name, values in features.labels.items()}
    return {name: torch.from_numpy(array) for name, array in made.items()}


def trainer(network: Any, features: Features, length: int, bf16: bool, rate: float) -> Step:
    network.train()
    decayed = [p for name, p in network.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    rest = [p for name, p in network.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=1e-8, fused=True)

    def train(examples: np.ndarray) -> np.ndarray:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = network(**tensors(features, examples, length)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach().float().numpy()

    return train


def real(output: Mapping[str, Any], lengths: np.ndarray) -> np.ndarray:
    """(T, 2) start and end logits of the tokens that are no padding, or (B, C) logits; `output` holds arrays."""
    if "start_logits" not in output:
        return np.asarray(output["logits"])
    both = np.stack([output["start_logits"], output["end_logits"]], axis=-1)
    return both[np.arange(both.shape[1]) < lengths[:, None]]


def predictor(network: Any, features: Features, length: int, bf16: bool) -> Step:
    if bf16:
        network.to(torch.bfloat16)

    def predict(examples: np.ndarray) -> np.ndarray:
        inputs = {name: torch.from_numpy(array) for name, array in padded(features, examples, length).items()}
        with torch.inference_mode():
            output = network(**inputs)
        arrays = {name: output[name].float().numpy() for name in output}
        return real(arrays, features.lengths[examples])

    return predict
