"""The same BERT by ONNX Runtime's own fused operators, which no other runtime has.

Source: onnxruntime/core/graph/contrib_ops/bert_defs.cc: EmbedLayerNormalization, Attention, SkipLayerNormalization,
BiasGelu, FastGelu.
Legend: B sequences, S length that they are padded to, H hidden, Q as in `bert.py`.
"""

from __future__ import annotations

from onnx import TensorProto

from bertkit_onnx.bert import Bert
from bertkit_onnx.graph import MICROSOFT


class FusedBert(Bert):
    """`dense` and the heads are the plain form's."""

    def _whole32(self, name: str) -> str:
        """An input as int32, which these operators take."""
        return self.graph.add("Cast", name, to=TensorProto.INT32)

    def norm(self, name: str) -> tuple[str, str]:
        """Scale and shift of a LayerNorm, in the compute precision, which these operators want."""
        return self.table(f"{name}.weight"), self.table(f"{name}.bias")

    def embed(self) -> str:
        """-> (B, S, H)"""
        name = "bert.embeddings."
        return self.graph.several(
            "EmbedLayerNormalization",
            self._whole32(self.ids),
            self._whole32(self.types),
            *(self.table(f"{name}{part}_embeddings.weight") for part in ("word", "position", "token_type")),
            *self.norm(f"{name}LayerNorm"),
            results=2,
            domain=MICROSOFT,
            epsilon=float(self.config.layer_norm_eps),
        )[0]

    def seen(self) -> str:
        """(B, S) int32: 1 where a token is real."""
        real = self.graph.add("Cast", self.mask, to=TensorProto.BOOL)  # any number but 0
        return self._whole32(real)

    def attention(self, x: str, name: str, seen: str, first_only: bool) -> str:
        """(B, S, H) -> (B, Q, H)"""
        parts = [f"{name}{part}" for part in ("query", "key", "value")]
        made = self.graph.add(
            "Attention",
            x,
            self.weight(*parts),
            self.bias(*parts),
            seen,
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )
        return self.first(made) if first_only else made

    def add_and_norm(self, x: str, found: str, name: str) -> str:
        """x and a dense layer over `found`, then LayerNorm."""
        product = self.graph.add("MatMul", found, self.weight(f"{name}.dense"))
        return self.graph.add(
            "SkipLayerNormalization",
            product,
            x,
            *self.norm(f"{name}.LayerNorm"),
            self.bias(f"{name}.dense"),
            domain=MICROSOFT,
            epsilon=float(self.config.layer_norm_eps),
        )

    def dense_active(self, x: str, name: str) -> str:
        if self.config.hidden_act == "relu":
            return super().dense_active(x, name)
        operator = "BiasGelu" if self.config.hidden_act == "gelu" else "FastGelu"
        product = self.graph.add("MatMul", x, self.weight(name))
        return self.graph.add(operator, product, self.bias(name), domain=MICROSOFT)
