"""The blocks of transformers. Weights come as the reference framework stores them and leave in ONNX's layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import onnx_ir as ir

from modelkit.graphs import masks
from modelkit.graphs.tape import Tape
from modelkit.weights import Weights


@dataclass(frozen=True)
class Blocks:
    """Blocks that read their parameters from `weights` by the checkpoint's own names and record onto `tape`."""

    tape: Tape
    weights: Weights
    stored: dict[str, ir.Value] = field(default_factory=dict)
    """Parameters by name: one that is asked for again (a tied table, both bodies of an `If`) is stored once."""

    def within(self, tape: Tape) -> Blocks:
        """The same parameters, recording onto another tape (the body of an `If`)."""
        return replace(self, tape=tape)

    def parameter(self, name: str, *shape: int) -> ir.Value:
        """A tensor of the checkpoint as it is stored there: float32[shape]."""
        if name not in self.stored:
            self.stored[name] = self.tape.weight(name, self.weights.read(name, shape))
        return self.stored[name]

    def table(self, name: str, rows: int, width: int) -> ir.Value:
        """An embedding table: float32[rows, width]."""
        return self.parameter(f"{name}.weight", rows, width)

    def linear(self, x: ir.Value, name: str, inner: int, outer: int, *, bias: bool = True) -> ir.Value:
        """`x @ W.T + b`: float32[..., inner] -> float32[..., outer]; W is stored [inner, outer]."""
        weight = f"{name}.weight"
        if weight not in self.stored:
            self.stored[weight] = self.tape.weight(weight, self.weights.read(weight, (outer, inner)).T)
        if not bias:
            return self.tape.node(name, "MatMul", x, self.stored[weight])
        product = self.tape.node(f"{name}/product", "MatMul", x, self.stored[weight])
        return self.tape.node(name, "Add", product, self.parameter(f"{name}.bias", outer))

    def tied_head(self, x: ir.Value, table: ir.Value, name: str) -> ir.Value:
        """`x @ table.T` with the table that also embeds: float32[..., width], float32[rows, width] -> [..., rows]."""
        turned = self.tape.node(f"{name}/turned", "Transpose", table, perm=[1, 0])
        return self.tape.node(name, "MatMul", x, turned)

    def layer_norm(self, x: ir.Value, name: str, width: int, epsilon: float) -> ir.Value:
        """Layer normalisation over the last axis."""
        scale, bias = self.parameter(f"{name}.weight", width), self.parameter(f"{name}.bias", width)
        return self.tape.node(name, "LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)

    def rms_norm(self, x: ir.Value, name: str, width: int, epsilon: float) -> ir.Value:
        """Scaling to a root mean square of one over the last axis (Zhang and Sennrich 2019, arXiv:1910.07467).

        Operator by operator in the order that onnxruntime fuses to its SimplifiedLayerNormalization.
        """
        tape = self.tape
        squares = tape.node(f"{name}/squares", "Pow", x, tape.constant(2.0, np.float32))
        mean = tape.node(f"{name}/mean", "ReduceMean", squares, tape.ints(-1), keepdims=1)
        floored = tape.node(f"{name}/floored", "Add", mean, tape.constant(epsilon, np.float32))
        unit = tape.node(f"{name}/unit", "Div", x, tape.node(f"{name}/length", "Sqrt", floored))
        return tape.node(name, "Mul", unit, self.parameter(f"{name}.weight", width))

    def attention_bias(self, mask: ir.Value) -> ir.Value:
        """int64[batch, sequence] of ones and zeros -> float32[batch, 1, 1, sequence] of 0 and `masks.LOWEST`."""
        tape = self.tape
        kept = tape.node("mask/kept", "Cast", mask, to=ir.DataType.BOOL)
        bias = masks.bias(tape, "mask/bias", kept)
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
