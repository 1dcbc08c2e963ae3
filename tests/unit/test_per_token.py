"""graphs/per_token.py and the two schemes made of it: integer products with one activation scale per token."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import small_models
from modelkit.errors import StageError
from modelkit.graphs import files
from modelkit.graphs.integers import LARGEST, to_int4, to_int8
from modelkit.schemes import w4a8_per_token
from small_models import Drawing

SCHEMES = ("w8a8-per-token", "w4a8-per-token")
W8, W4 = SCHEMES
Draw = Callable[[Drawing], ir.Value]


def matrix(inner: int, outer: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, inner**-0.5, (inner, outer)).astype(np.float32)


def values(*shape: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)


def product(weight: np.ndarray, before: str | None = None, **attributes: Any) -> Draw:
    """`x @ weight`, perhaps with an activation before it."""

    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        x = tape.node("active", before, drawing.x, **attributes) if before else drawing.x
        return tape.node("product", "MatMul", x, tape.weight("w", weight))

    return draw


def optimized(path: Path, folder: Path) -> list[str]:
    """The operators that onnxruntime runs in the place of those in the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return [node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node]


class Pair:
    """One graph as it is and after a scheme."""

    def __init__(self, folder: Path, draw: Draw, rank: int, inner: int, outer: int, kind: str, **options: Any) -> None:
        leading = tuple(f"axis{number}" for number in range(rank - 1))
        small_models.graph(folder / "float", (*leading, inner), draw, (*leading, outer))
        small_models.quantized(folder / "float", folder / "integer", kind, **options)
        self.float_path = small_models.finished(folder / "float", folder / "float finished")
        self.path = small_models.finished(folder / "integer", folder / "integer finished")

    def expected(self, x: np.ndarray) -> np.ndarray:
        return small_models.run(self.float_path, {"x": x})[0]

    def got(self, x: np.ndarray) -> np.ndarray:
        return small_models.run(self.path, {"x": x})[0]

    def error(self, x: np.ndarray) -> float:
        """Root mean square error as a share of the output's own size."""
        expected = self.expected(x)
        return float(np.sqrt(np.mean((self.got(x) - expected) ** 2) / np.mean(expected**2)))


CLOSE = {W8: 0.012, W4: 0.13}


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("shape", [(7, 64), (3, 7, 64), (2, 3, 7, 64), (1, 64)])
def test_a_product_of_any_rank_stays_close(tmp_path: Path, kind: str, shape: tuple[int, ...]) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48)), len(shape), 64, 48, kind)
    x = values(*shape)
    assert pair.got(x).shape == pair.expected(x).shape
    assert pair.error(x) < CLOSE[kind]


@settings(max_examples=20, deadline=None)
@given(
    inner=st.integers(1, 6).map(lambda n: 16 * n),
    outer=st.integers(1, 70),
    tokens=st.integers(1, 9),
    scale=st.floats(-3, 3).map(lambda power: 10.0**power),
    kind=st.sampled_from(SCHEMES),
)
def test_products_of_any_size_and_scale_stay_close(
    inner: int, outer: int, tokens: int, scale: float, kind: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pair = Pair(Path(folder), product(matrix(inner, outer)), 2, inner, outer, kind)
        x = np.float32(scale) * values(tokens, inner)
        limit = 1.1 * np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(matrix(inner, outer), axis=0)
        assert (np.abs(pair.got(x) - pair.expected(x)) <= CLOSE[kind] * limit).all()


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("before", [None, "Gelu", "Relu"])
def test_a_token_does_not_feel_its_neighbours(tmp_path: Path, kind: str, before: str | None) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), before), 3, 64, 48, kind)
    x = values(4, 6, 64)
    x[1] *= 1000
    together = pair.got(x)
    for row in range(4):
        for token in range(6):
            alone = pair.got(x[row : row + 1, token : token + 1])
            np.testing.assert_array_equal(alone[0, 0], together[row, token])


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("before", [None, "Gelu", "Relu"])
def test_an_all_zero_token_gives_zeros(tmp_path: Path, kind: str, before: str | None) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), before), 3, 64, 48, kind)
    x = values(2, 3, 64)
    x[0, 1] = 0
    got = pair.got(x)
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got[0, 1], 0, atol=0.005)


def test_no_token_is_divided_by_zero(tmp_path: Path) -> None:
    # What zero divided by zero becomes as an integer depends on the processor.
    pair = Pair(tmp_path, product(matrix(64, 48)), 2, 64, 48, W8)
    onnx.save(exposing(pair.path, "x/peak/floored", onnx.TensorProto.FLOAT), tmp_path / "exposed.onnx")
    assert small_models.run(tmp_path / "exposed.onnx", {"x": np.zeros((3, 64), np.float32)})[1].min() > 0


@pytest.mark.parametrize("kind", SCHEMES)
def test_huge_and_tiny_activations_stay_finite(tmp_path: Path, kind: str) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48)), 2, 64, 48, kind)
    for scale in (1e-30, 1e-12, 1e12, 1e30):
        assert np.isfinite(pair.got(np.float32(scale) * values(3, 64))).all()


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("loudness", [1, 0.4])
def test_what_gelu_leaves_below_zero_is_not_cut_off(
    tmp_path: Path, kind: str, approximate: str, loudness: float
) -> None:
    # A bias in the columns would show as a mean error far from zero.
    pair = Pair(tmp_path, product(matrix(64, 48) + 0.05, "Gelu", approximate=approximate), 2, 64, 48, kind)
    x = np.float32(loudness) * values(500, 64)
    error = pair.got(x) - pair.expected(x)
    assert pair.error(x) < CLOSE[kind]
    if kind == W8:
        assert abs(error.mean()) < error.std() / 10


def test_after_relu_all_256_levels_are_used(tmp_path: Path) -> None:
    bounded = Pair(tmp_path / "relu", product(matrix(64, 48), "Relu"), 2, 64, 48, W8)
    plain = Pair(tmp_path / "plain", product(matrix(64, 48), "LeakyRelu", alpha=0.01), 2, 64, 48, W8)
    assert bounded.error(values(200, 64)) < 0.8 * plain.error(values(200, 64))


def test_a_quiet_token_after_gelu_keeps_its_digits(tmp_path: Path) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), "Gelu"), 2, 64, 48, W8)
    assert pair.error(np.float32(0.3) * values(200, 64)) < 0.012


def test_the_second_eight_bits_are_used_to_their_ends(tmp_path: Path) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48)), 2, 64, 48, W8, activations_16bit=("w",))
    onnx.save(exposing(pair.path, "y/rest/codes", onnx.TensorProto.UINT8), tmp_path / "exposed.onnx")
    codes = small_models.run(tmp_path / "exposed.onnx", {"x": values(200, 64)})[1]
    assert (codes.min(), codes.max()) == (1, 255)


def test_after_gelu_few_levels_are_left_to_negative_values(tmp_path: Path) -> None:
    bounded = Pair(tmp_path / "gelu", product(matrix(64, 48), "Gelu"), 2, 64, 48, W8)
    plain = Pair(tmp_path / "plain", product(matrix(64, 48), "LeakyRelu", alpha=0.1), 2, 64, 48, W8)
    assert bounded.error(values(200, 64)) < 0.9 * plain.error(values(200, 64))


@pytest.mark.parametrize("kind", SCHEMES)
def test_two_products_of_one_activation_quantize_it_once(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        parts = [tape.node(n, "MatMul", drawing.x, tape.weight(f"w{n}", matrix(64, 48, ord(n)))) for n in "ab"]
        return tape.node("sum", "Add", *parts)

    pair = Pair(tmp_path, draw, 2, 64, 48, kind)
    nodes = [node.op_type for node in onnx.load(pair.path).graph.node]
    assert (nodes.count("QuantizeLinear"), nodes.count("MatMulInteger")) == (1, 2)
    assert pair.error(values(9, 64)) < CLOSE[kind]


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("between", ["Relu", "Gelu"])
def test_layers_that_share_a_matrix_store_it_once(tmp_path: Path, kind: str, between: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape, shared = drawing.tape, drawing.tape.weight("w", matrix(64, 64))
        value = drawing.x
        for number in range(3):
            value = tape.node(f"product{number}", "MatMul", tape.node(f"active{number}", between, value), shared)
        return value

    pair = Pair(tmp_path, draw, 2, 64, 64, kind)
    names = [tensor.name for tensor in onnx.load(pair.path).graph.initializer]
    assert len(names) == len(set(names))
    assert sum(name.startswith("w/") and name.endswith(("int8", "codes")) for name in names) == 1
    x = values(9, 64)
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > 0.95


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_product_right_after_a_product_works(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        first = tape.node("first", "MatMul", drawing.x, tape.weight("w1", matrix(64, 32)))
        return tape.node("second", "MatMul", first, tape.weight("w2", matrix(32, 48)))

    pair = Pair(tmp_path, draw, 2, 64, 48, kind)
    assert pair.error(values(9, 64)) < 2 * CLOSE[kind]


@pytest.mark.parametrize("kind", SCHEMES)
def test_sixteen_bit_activations_lose_less(tmp_path: Path, kind: str) -> None:
    plain = Pair(tmp_path / "plain", product(matrix(64, 48)), 2, 64, 48, kind)
    finer = Pair(tmp_path / "finer", product(matrix(64, 48)), 2, 64, 48, kind, activations_16bit=("w",))
    errors = [(finer.error(values(40, 64, seed=s)), plain.error(values(40, 64, seed=s))) for s in range(5)]
    assert all(fine < coarse for fine, coarse in errors)


def test_onnxruntime_fuses_the_bias_with_gelu(tmp_path: Path) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        inner = tape.node("inner", "MatMul", drawing.x, tape.weight("w1", matrix(64, 32)))
        biased = tape.node("biased", "Add", inner, tape.weight("b", values(32)))
        return tape.node("outer", "MatMul", tape.node("active", "Gelu", biased), tape.weight("w2", matrix(32, 48)))

    nodes = optimized(Pair(tmp_path, draw, 3, 64, 48, W8).path, tmp_path)
    assert (nodes.count("BiasGelu"), nodes.count("MatMulIntegerToFloat")) == (1, 2)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("finer", [(), ("w",)])
def test_onnxruntime_fuses_product_cast_and_scale(tmp_path: Path, kind: str, finer: tuple[str, ...]) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), "Gelu"), 3, 64, 48, kind, activations_16bit=finer)
    nodes = optimized(pair.path, tmp_path)
    assert nodes.count("MatMulIntegerToFloat") == 1 + len(finer)
    assert "MatMulInteger" not in nodes


def test_with_sixteen_bits_only_the_weights_are_off(tmp_path: Path) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48)), 2, 64, 48, W8, activations_16bit=("w",))
    codes, scales = to_int8(matrix(64, 48).T, paired=True)
    x = values(40, 64)
    np.testing.assert_allclose(pair.got(x), x @ (codes * scales[:, None]).T, atol=2e-4)


@pytest.mark.parametrize("before", ["Gelu", "Relu"])
def test_sixteen_bits_work_after_a_bounded_operator_too(tmp_path: Path, before: str) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), before), 2, 64, 48, W8, activations_16bit=("w",))
    plain = Pair(tmp_path / "plain", product(matrix(64, 48), before), 2, 64, 48, W8)
    assert pair.error(values(200, 64)) < plain.error(values(200, 64))


def test_eight_bit_exceptions_have_the_tensors_of_w8a8(tmp_path: Path) -> None:
    four = Pair(tmp_path / "four", product(matrix(64, 48)), 2, 64, 48, W4, weights_8bit=("w",))
    eight = Pair(tmp_path / "eight", product(matrix(64, 48)), 2, 64, 48, W8)
    x = values(9, 64)
    np.testing.assert_array_equal(four.got(x), eight.got(x))


@pytest.mark.parametrize(
    ("kind", "option"),
    [(W8, "activations_16bit"), (W4, "activations_16bit"), (W4, "weights_8bit")],
)
def test_a_pattern_that_names_nothing_is_told_with_what_there_is(tmp_path: Path, kind: str, option: str) -> None:
    with pytest.raises(StageError) as caught:
        Pair(tmp_path, product(matrix(64, 48)), 2, 64, 48, kind, **{option: ("w", "*.valu.weight")})
    assert "the pattern '*.valu.weight' of the scheme names no weight matrix" in str(caught.value)
    assert "matrices are called like w" in str(caught.value)


def test_a_matrix_that_the_blocks_do_not_divide_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        StageError, match=r"tensor 'w' has 40 values along its inner axis, .* of 16; .* smaller `block`"
    ):
        Pair(tmp_path, product(matrix(40, 48)), 2, 40, 48, W4)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 1e30, -2 * LARGEST])
def test_weights_that_no_scale_can_hold_are_named(tmp_path: Path, kind: str, odd: float) -> None:
    weight = matrix(64, 48)
    weight[3, 4] = odd
    with pytest.raises(StageError, match="tensor 'w' holds NaN or values beyond 4,000,000"):
        Pair(tmp_path, product(weight), 2, 64, 48, kind)


@pytest.mark.parametrize("kind", SCHEMES)
def test_weights_up_to_the_largest_work(tmp_path: Path, kind: str) -> None:
    weight = matrix(64, 48)
    weight *= LARGEST / np.abs(weight).max() * 0.999
    assert Pair(tmp_path, product(weight), 2, 64, 48, kind).error(values(9, 64)) < CLOSE[kind]


# Tables


def lookup(table: np.ndarray) -> Draw:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        indices = tape.node("indices", "Cast", drawing.x, to=ir.DataType.INT64)
        return tape.node("rows", "Gather", tape.weight("table", table), indices)

    return draw


def slices(table: np.ndarray) -> Draw:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        length = tape.node("length", "Shape", drawing.x, start=1)
        return tape.node("rows", "Slice", tape.weight("table", table), tape.ints(0), length)

    return draw


def table_graph(folder: Path, draw: Draw, out: tuple[str | int, ...], kind: str, **options: Any) -> Path:
    small_models.graph(folder / "float", ("batch", "sequence"), draw, out)
    small_models.quantized(folder / "float", folder / "integer", kind, **options)
    return small_models.finished(folder / "integer", folder / "finished")


INDICES = np.random.default_rng(2).integers(0, 600, (3, 5)).astype(np.float32)
TABLE = matrix(600, 64) * np.linspace(0.01, 10, 600, dtype=np.float32)[:, None]


def test_rows_of_an_int8_table_are_its_codes_times_their_scale(tmp_path: Path) -> None:
    path = table_graph(tmp_path, lookup(TABLE), ("batch", "sequence", 64), W8)
    codes, scales = to_int8(TABLE, paired=False)
    [got] = small_models.run(path, {"x": INDICES})
    np.testing.assert_allclose(got, (codes * scales[:, None])[INDICES.astype(int)], rtol=1e-6)


@pytest.mark.parametrize("block", [16, 32, 64])
def test_rows_of_an_int4_table_are_its_integers_times_their_scale(tmp_path: Path, block: int) -> None:
    path = table_graph(tmp_path, lookup(TABLE), ("batch", "sequence", 64), W4, table_block=block)
    packed = to_int4(TABLE, block, paired=False)
    expected = (packed.integers() * packed.scales[:, None])[INDICES.astype(int)]
    [got] = small_models.run(path, {"x": INDICES})
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_slice_of_a_table_gets_eight_bits(tmp_path: Path, kind: str) -> None:
    path = table_graph(tmp_path, slices(TABLE), ("sequence", 64), kind)
    codes, scales = to_int8(TABLE, paired=False)
    [got] = small_models.run(path, {"x": INDICES})
    np.testing.assert_allclose(got, (codes * scales[:, None])[:5], rtol=1e-6)


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_small_table_stays_as_it_is(tmp_path: Path, kind: str) -> None:
    small = TABLE[:200]
    path = table_graph(tmp_path, lookup(small), ("batch", "sequence", 64), kind)
    [got] = small_models.run(path, {"x": INDICES % 200})
    np.testing.assert_array_equal(got, small[(INDICES % 200).astype(int)])


def test_a_table_that_the_blocks_do_not_divide_is_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"tensor 'table' has 60 values along .* smaller `table_block`"):
        table_graph(tmp_path, lookup(matrix(600, 60)), ("batch", "sequence", 60), W4)


# Unpacking


def exposing(path: Path, name: str, dtype: int = onnx.TensorProto.INT8) -> onnx.ModelProto:
    """The model with the inner value `name` as an output more."""
    model = onnx.load(path)
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, dtype, None))
    return model


@pytest.mark.parametrize("block", [16, 32, 64])
def test_the_graph_unpacks_to_the_integers_that_were_meant(tmp_path: Path, block: int) -> None:
    weight = matrix(128, 48)
    pair = Pair(tmp_path, product(weight), 2, 128, 48, W4, block=block)
    onnx.save(exposing(pair.path, "w/int8"), tmp_path / "exposed.onnx")
    expected = to_int4(weight.T, block, paired=True).integers().T
    x = {"x": values(3, 128)}
    for run in (small_models.run, small_models.plain_run):
        np.testing.assert_array_equal(run(tmp_path / "exposed.onnx", x)[1], expected)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("before", [None, "Gelu"])
def test_a_runtime_that_folds_nothing_computes_the_same(tmp_path: Path, kind: str, before: str | None) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), before), 3, 64, 48, kind)
    x = values(3, 5, 64)
    np.testing.assert_allclose(pair.got(x), small_models.plain_run(pair.path, {"x": x})[0], atol=1e-6)


def test_two_codes_share_a_byte(tmp_path: Path) -> None:
    Pair(tmp_path, product(matrix(128, 48)), 2, 128, 48, W4)
    stored = {name: size for name, _, _, size in files.account(tmp_path / "integer" / files.MODEL)}
    assert stored["w/codes"] == 128 * 48 // 2


def test_halves_put_the_first_half_in_the_low_bits() -> None:
    codes = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.uint8)
    np.testing.assert_array_equal(w4a8_per_token._halves(codes, axis=0), [[0x51, 0x62], [0x73, 0x84]])
    np.testing.assert_array_equal(w4a8_per_token._halves(codes, axis=1), [[0x21], [0x43], [0x65], [0x87]])


@pytest.mark.parametrize("kind", SCHEMES)
def test_nothing_but_standard_operators_is_used(tmp_path: Path, kind: str) -> None:
    pair = Pair(tmp_path, product(matrix(64, 48), "Gelu"), 2, 64, 48, kind)
    model = onnx.load(pair.path)
    assert {node.domain for node in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)
    assert "w" not in {tensor.name for tensor in model.graph.initializer}


@pytest.mark.parametrize("kind", SCHEMES)
def test_products_of_two_activations_stay_as_they_are(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        turned = drawing.tape.node("turned", "Transpose", drawing.x, perm=[1, 0])
        return drawing.tape.node("square", "MatMul", drawing.x, turned)

    small_models.graph(tmp_path / "float", (5, 64), draw, (5, 5))
    small_models.quantized(tmp_path / "float", tmp_path / "integer", kind)
    assert [node.op_type for node in onnx.load(tmp_path / "integer" / files.MODEL).graph.node] == [
        "Transpose",
        "MatMul",
    ]
