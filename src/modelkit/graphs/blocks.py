"""The blocks encoders are made of. Weights come as the reference framework stores them and leave in ONNX's layout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from modelkit.graphs.tape import Tape
from modelkit.weights import Weights

LOWEST = float(np.finfo(np.float32).min)
"""Added to the score of a masked position, as transformers does."""


@dataclass(frozen=True)
class Blocks:
    """Blocks that read their parameters from `weights` by the checkpoint's own names and record onto `tape`."""

    tape: Tape
    weights: Weights

    def table(self, name: str, rows: int, width: int) -> ir.Value:
        """An embedding table: float32[rows, width]."""
        return self.tape.weight(f"{name}.weight", self.weights.read(f"{name}.weight", (rows, width)))

    def linear(self, x: ir.Value, name: str, inner: int, outer: int) -> ir.Value:
        """`x @ W.T + b`: float32[..., inner] -> float32[..., outer]; W is stored [inner, outer]."""
        matrix = self.weights.read(f"{name}.weight", (outer, inner)).T
        product = self.tape.node(f"{name}/product", "MatMul", x, self.tape.weight(f"{name}.weight", matrix))
        bias = self.tape.weight(f"{name}.bias", self.weights.read(f"{name}.bias", (outer,)))
        return self.tape.node(name, "Add", product, bias)

    def layer_norm(self, x: ir.Value, name: str, width: int, epsilon: float) -> ir.Value:
        """Layer normalisation over the last axis."""
        scale = self.tape.weight(f"{name}.weight", self.weights.read(f"{name}.weight", (width,)))
        bias = self.tape.weight(f"{name}.bias", self.weights.read(f"{name}.bias", (width,)))
        return self.tape.node(name, "LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def attention_bias(self, mask: ir.Value) -> ir.Value:
        """int64[batch, sequence] of ones and zeros -> float32[batch, 1, 1, sequence] of 0 and `LOWEST`."""
        tape = self.tape
        kept = tape.node("mask/kept", "Cast", mask, to=ir.DataType.BOOL)
        bias = tape.node(
            "mask/bias", "Where", kept, tape.constant(0.0, np.float32), tape.constant(LOWEST, np.float32)
        )  # fmt: skip
        return tape.node("mask/attention_bias", "Unsqueeze", bias, tape.ints(1, 2))

    def attention(
        self, name: str, query: ir.Value, key: ir.Value, value: ir.Value, bias: ir.Value, heads: int, width: int
    ) -> ir.Value:
        """Scaled dot-product attention of `heads` heads: three float32[batch, sequence, width] -> one."""
        tape = self.tape
        split = tape.ints(0, 0, heads, width // heads)

        def per_head(x: ir.Value, part: str, order: list[int]) -> ir.Value:
            return tape.node(
                f"{name}/{part}/transposed", "Transpose", tape.node(f"{name}/{part}", "Reshape", x, split), perm=order
            )

        scores = tape.node(
            f"{name}/scores", "MatMul", per_head(query, "query", [0, 2, 1, 3]), per_head(key, "key", [0, 2, 3, 1])
        )
        scaled = tape.node(f"{name}/scaled", "Div", scores, tape.constant(math.sqrt(width // heads), np.float32))
        shares = tape.node(f"{name}/shares", "Softmax", tape.node(f"{name}/masked", "Add", scaled, bias), axis=-1)
        mixed = tape.node(f"{name}/mixed", "MatMul", shares, per_head(value, "value", [0, 2, 1, 3]))
        joined = tape.node(f"{name}/joined/transposed", "Transpose", mixed, perm=[0, 2, 1, 3])
        return tape.node(f"{name}/joined", "Reshape", joined, tape.ints(0, 0, width))

    def pool(self, hidden: ir.Value, mask: ir.Value, pooling: str, normalize: bool) -> ir.Value:
        """float32[batch, sequence, width] -> float32[batch, width], as sentence-transformers' Pooling and Normalize.

        `mean` averages over the positions of the mask, `cls` takes the first position.
        """
        tape = self.tape
        if pooling == "cls":
            pooled = tape.node("pooling/first", "Gather", hidden, tape.constant(0, np.int64), axis=1)
        else:
            share = tape.node("pooling/mask", "Cast", mask, to=ir.DataType.FLOAT)
            share = tape.node("pooling/weights", "Unsqueeze", share, tape.ints(-1))
            total = tape.node(
                "pooling/sum", "ReduceSum", tape.node("pooling/kept", "Mul", hidden, share), tape.ints(1), keepdims=0
            )
            count = tape.node("pooling/count", "ReduceSum", share, tape.ints(1), keepdims=0)
            # The floors are those of sentence-transformers: an empty mask or a zero vector must not divide by zero.
            count = tape.node("pooling/count/floored", "Max", count, tape.constant(1e-9, np.float32))
            pooled = tape.node("pooling/mean", "Div", total, count)
        if not normalize:
            return pooled
        length = tape.node("pooling/length", "ReduceL2", pooled, tape.ints(-1), keepdims=1)
        length = tape.node("pooling/length/floored", "Max", length, tape.constant(1e-12, np.float32))
        return tape.node("pooling/unit", "Div", pooled, length)
