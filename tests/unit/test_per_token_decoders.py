"""The schemes on decoders: bodies of `If`, tied tables and heads, and steps with a past."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import small_models
from modelkit.errors import StageError
from modelkit.graphs import files
from modelkit.graphs.integers import to_int4, to_int8
from modelkit.graphs.tape import Drawn, Tape, model_of, output, typed
from small_models import Drawing

SCHEMES = ("w8a8-per-token", "w4a8-per-token")
W8, W4 = SCHEMES
LEAST = {W8: 0.998, W4: 0.96}
"""Cosine to float32 after a few products with seeded weights."""
WORDS, WIDTH, INNER = 600, 64, 96


def matrix(inner: int, outer: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, inner**-0.5, (inner, outer)).astype(np.float32)


def ids(*shape: int, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, WORDS, shape).astype(np.float32)


TABLE = matrix(WORDS, WIDTH) * np.linspace(1, 30, WORDS, dtype=np.float32)[:, None]


def head(tape: Tape, name: str, x: ir.Value, table: ir.Value) -> ir.Value:
    return tape.node(name, "MatMul", x, tape.node(f"{name}/turned", "Transpose", table, perm=[1, 0]))


def tied(table: np.ndarray) -> Any:
    """Rows of a table, multiplied with the same table."""

    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        stored, indices = tape.weight("table", table), tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        return head(tape, "head", tape.node("rows", "Gather", stored, indices), stored)

    return draw


def branches(drawing: Drawing) -> ir.Value:
    """A first step and later ones, like T5 in one file: bodies that share a table, a tied head and a matrix."""
    tape = drawing.tape
    table, shared = tape.weight("table", TABLE), tape.weight("shared", matrix(WIDTH, WIDTH))
    up, down = tape.weight("up", matrix(WIDTH, INNER, 1)), tape.weight("down", matrix(INNER, WIDTH, 2))
    indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
    rows = tape.node("rows", "Gather", table, indices)
    mixed = tape.node("mixed", "MatMul", rows, shared)

    def body(name: str, *, first: bool) -> ir.Graph:
        inner = tape.inner()
        value = inner.node("again", "Gather", table, indices)
        value = inner.node("both", "Add", value, inner.node("read outside", "MatMul", rows, shared))
        value = inner.node("inside", "MatMul", value, shared)
        if first:
            value = inner.node("active", "Relu", inner.node("up product", "MatMul", value, up))
            value = inner.node("down product", "MatMul", value, down)
        logits = head(inner, f"{name} logits", value, table)
        return ir.Graph([], [logits], nodes=inner.nodes, name=name)

    length = tape.node("length", "Shape", drawing.x, start=1)
    one = tape.node("is one", "Squeeze", tape.node("equal", "Equal", length, tape.ints(1)))
    chosen = tape.node(
        "chosen", "If", one, then_branch=body("later", first=False), else_branch=body("first", first=True)
    )
    outside = tape.node("outside", "MatMul", tape.node("added", "Add", mixed, rows), shared)
    return tape.node("sum", "Add", chosen, head(tape, "head", outside, table))


class Pair:
    """One graph of token ids as it is and after a scheme."""

    def __init__(self, folder: Path, draw: Any, kind: str, out: int = WORDS, **options: Any) -> None:
        small_models.graph(folder / "float", ("batch", "sequence"), draw, ("batch", "sequence", out))
        self.folder = small_models.quantized(folder / "float", folder / "integer", kind, **options)
        self.float_path = small_models.finished(folder / "float", folder / "float finished")
        self.path = small_models.finished(self.folder, folder / "integer finished")

    def expected(self, x: np.ndarray) -> np.ndarray:
        return small_models.run(self.float_path, {"x": x})[0]

    def got(self, x: np.ndarray) -> np.ndarray:
        return small_models.run(self.path, {"x": x})[0]

    def stored(self) -> dict[str, tuple[str, tuple[int, ...], int]]:
        rows = files.account(self.folder / files.MODEL)
        return {name: (dtype, shape, size) for name, dtype, shape, size in rows}

    def graphs(self) -> list[onnx.GraphProto]:
        return list(files.all_graphs(onnx.load(self.path).graph))


def optimized(path: Path, into: Path) -> list[onnx.GraphProto]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(into)
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return list(files.all_graphs(onnx.load(into).graph))


# Bodies of If


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("sequence", [1, 7])
def test_both_bodies_stay_close(tmp_path: Path, kind: str, sequence: int) -> None:
    pair, x = Pair(tmp_path, branches, kind), ids(3, sequence)
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("sequence", [1, 7])
def test_bodies_need_no_optimisation(tmp_path: Path, kind: str, sequence: int) -> None:
    pair, x = Pair(tmp_path, branches, kind), ids(3, sequence)
    np.testing.assert_allclose(pair.got(x), small_models.plain_run(pair.path, {"x": x})[0], rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("kind", SCHEMES)
def test_no_body_keeps_a_product_in_float32(tmp_path: Path, kind: str) -> None:
    graphs = Pair(tmp_path, branches, kind).graphs()
    assert len(graphs) == 3
    for graph in graphs:
        operators = [node.op_type for node in graph.node]
        assert "MatMulInteger" in operators
        assert "MatMul" not in operators


@pytest.mark.parametrize("kind", SCHEMES)
def test_what_bodies_share_is_stored_once_and_outside(tmp_path: Path, kind: str) -> None:
    pair = Pair(tmp_path, branches, kind)
    outer, *bodies = pair.graphs()
    assert not any(body.initializer for body in bodies)
    weights = WORDS * WIDTH + WIDTH * WIDTH + 2 * WIDTH * INNER
    per_weight = {W8: 1.1, W4: 0.7}[kind]
    assert sum(len(tensor.raw_data) for tensor in outer.initializer) < per_weight * weights
    large = [dtype for dtype, _, size in pair.stored().values() if size >= 1024]
    assert set(large) <= {"INT8", "UINT8", "FLOAT16"}


@pytest.mark.parametrize("kind", SCHEMES)
def test_new_names_are_unique_across_all_graphs(tmp_path: Path, kind: str) -> None:
    drawn_twice = {"again", "both", "read outside", "inside"}
    names = [name for graph in Pair(tmp_path, branches, kind).graphs() for node in graph.node for name in node.output]
    assert {name for name in names if names.count(name) > 1} <= drawn_twice


@pytest.mark.parametrize("kind", SCHEMES)
def test_nested_graphs_are_valid_onnx(tmp_path: Path, kind: str) -> None:
    onnx.checker.check_model(onnx.load(Pair(tmp_path, branches, kind).path), full_check=True)


def test_an_activation_quantized_outside_is_not_quantized_again_in_a_body(tmp_path: Path) -> None:
    outer, *bodies = Pair(tmp_path, branches, W8).graphs()
    assert [name for node in outer.node for name in node.output].count("rows/codes") == 1
    counts = {body.name: [node.op_type for node in body.node].count("QuantizeLinear") for body in bodies}
    # `both` and what the head reads; the first step has two products more.
    assert counts == {"later": 2, "first": 4}


@pytest.mark.parametrize("kind", SCHEMES)
def test_onnxruntime_fuses_products_inside_bodies(tmp_path: Path, kind: str) -> None:
    for graph in optimized(Pair(tmp_path, branches, kind).path, tmp_path / "optimized.onnx"):
        operators = [node.op_type for node in graph.node]
        assert "MatMulIntegerToFloat" in operators
        assert "MatMulInteger" not in operators


@pytest.mark.parametrize("kind", SCHEMES)
def test_nested_graphs_have_the_same_bytes_every_time(tmp_path: Path, kind: str) -> None:
    first, second = (Pair(tmp_path / name, branches, kind).folder for name in "ab")
    assert small_models.digests(first) == small_models.digests(second)


@pytest.mark.parametrize("kind", SCHEMES)
def test_bodies_in_bodies_are_rewritten(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        table = tape.weight("table", TABLE)
        deep, deeper = tape.inner(), tape.inner().inner()
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        rows = deeper.node("rows", "Gather", table, indices)
        end = head(deeper, "logits", rows, table)
        true = tape.node("true", "Equal", tape.ints(1), tape.ints(1))
        plain = {}
        for depth, inside in (("deep", deep), ("outer", tape)):
            other = inside.inner()
            value = head(other, f"{depth} else", other.node(f"{depth} rows", "Gather", table, indices), table)
            plain[depth] = ir.Graph([], [value], nodes=other.nodes, name=f"{depth} else")
        innermost = ir.Graph([], [end], nodes=deeper.nodes, name="innermost")
        middle = deep.node("middle", "If", true, then_branch=innermost, else_branch=plain["deep"])
        body = ir.Graph([], [middle], nodes=deep.nodes, name="body")
        return tape.node("chosen", "If", true, then_branch=body, else_branch=plain["outer"])

    pair, x = Pair(tmp_path, draw, kind), ids(3, 5)
    assert "MatMul" not in {node.op_type for graph in pair.graphs() for node in graph.node}
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


# Tied tables


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_tied_head_stays_close(tmp_path: Path, kind: str) -> None:
    pair, x = Pair(tmp_path, tied(TABLE), kind), ids(3, 5)
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


def test_an_int8_head_multiplies_with_the_rows_that_are_looked_up(tmp_path: Path) -> None:
    pair, x = Pair(tmp_path, tied(TABLE), W8, activations_16bit=("table",)), ids(3, 5)
    codes, scales = to_int8(TABLE, paired=True)
    rows = codes * scales[:, None]
    expected = rows[x.astype(int)] @ rows.T
    np.testing.assert_allclose(pair.got(x), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("block", [16, 32, 64])
def test_an_int4_head_multiplies_with_the_rows_that_are_looked_up(tmp_path: Path, block: int) -> None:
    pair, x = Pair(tmp_path, tied(TABLE), W4, activations_16bit=("table",), table_block=block), ids(3, 5)
    packed = to_int4(TABLE, block, paired=True)
    rows = packed.integers() * packed.scales[:, None]
    expected = rows[x.astype(int)] @ rows.T
    np.testing.assert_allclose(pair.got(x), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("kind", "name", "width"), [(W8, "table/int8", WIDTH), (W4, "table/codes", WIDTH // 2)])
def test_table_and_head_share_one_buffer(tmp_path: Path, kind: str, name: str, width: int) -> None:
    stored = Pair(tmp_path, tied(TABLE), kind).stored()
    assert stored[name][1:] == ((WORDS, width), WORDS * width)
    assert sum(size for _, _, size in stored.values()) < 1.25 * WORDS * width + 5000


@pytest.mark.parametrize("kind", SCHEMES)
def test_no_float_copy_of_a_tied_table_is_held(tmp_path: Path, kind: str) -> None:
    graphs = optimized(Pair(tmp_path, tied(TABLE), kind).path, tmp_path / "optimized.onnx")
    held = {t.name: (t.data_type, np.prod(t.dims)) for graph in graphs for t in graph.initializer}
    assert not [name for name, (dtype, size) in held.items() if dtype == onnx.TensorProto.FLOAT and size > WORDS]
    folded = [size for dtype, size in held.values() if dtype == onnx.TensorProto.INT8 and size >= WORDS * WIDTH]
    assert folded == [WORDS * WIDTH] * {W8: 2, W4: 1}[kind]


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_small_table_with_a_tied_head_becomes_integers(tmp_path: Path, kind: str) -> None:
    pair, x = Pair(tmp_path, tied(TABLE[:100]), kind, out=100), ids(3, 5) % 100
    assert not [name for name, (dtype, shape, _) in pair.stored().items() if dtype == "FLOAT" and len(shape) == 2]
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


@pytest.mark.parametrize("kind", SCHEMES)
def test_repeated_products_with_one_matrix_are_all_fused(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape, shared = drawing.tape, drawing.tape.weight("shared", matrix(WIDTH, WIDTH))
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        value = tape.node("rows", "Gather", tape.weight("table", TABLE), indices)
        for number in range(4):
            value = tape.node(f"product{number}", "MatMul", tape.node(f"active{number}", "Relu", value), shared)
        return value

    [graph] = optimized(Pair(tmp_path, draw, kind, out=WIDTH).path, tmp_path / "optimized.onnx")
    operators = [node.op_type for node in graph.node]
    assert (operators.count("MatMulIntegerToFloat"), operators.count("MatMulInteger")) == (4, 0)


@pytest.mark.parametrize("kind", SCHEMES)
@pytest.mark.parametrize("rows", [100, WORDS])
def test_a_lookup_after_the_head_reads_the_same_integers(tmp_path: Path, kind: str, rows: int) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape, table = drawing.tape, drawing.tape.weight("table", TABLE[:rows])
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        first = head(tape, "first head", tape.node("first", "Gather", table, indices), table)
        second = head(tape, "second head", tape.node("second", "Gather", table, indices), table)
        return tape.node("sum", "Add", first, second)

    pair, x = Pair(tmp_path, draw, kind, out=rows), ids(3, 5) % rows
    assert not [name for name, (dtype, shape, _) in pair.stored().items() if dtype == "FLOAT" and len(shape) == 2]
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_table_that_is_multiplied_as_it_is_stays_close(tmp_path: Path, kind: str) -> None:
    square = matrix(WIDTH * 2, WIDTH * 2)

    def draw(drawing: Drawing) -> ir.Value:
        tape, table = drawing.tape, drawing.tape.weight("table", square)
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        straight = tape.node("product", "MatMul", tape.node("rows", "Gather", table, indices), table)
        return head(tape, "head", straight, table)

    pair, x = Pair(tmp_path, draw, kind, out=2 * WIDTH), ids(3, 5) % (2 * WIDTH)
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind] - 0.02


@pytest.mark.parametrize("kind", SCHEMES)
def test_a_matrix_that_is_only_multiplied_turned_is_an_ordinary_one(tmp_path: Path, kind: str) -> None:
    weight = matrix(48, WIDTH)

    def draw(drawing: Drawing) -> ir.Value:
        tape = drawing.tape
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        rows = tape.node("rows", "Gather", tape.weight("table", TABLE), indices)
        return head(tape, "head", rows, tape.weight("w", weight))

    pair, x = Pair(tmp_path, draw, kind, out=48), ids(3, 5)
    assert "Transpose" not in {node.op_type for node in pair.graphs()[0].node}
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > LEAST[kind]


def test_a_tied_table_can_have_eight_bits_among_four(tmp_path: Path) -> None:
    four = Pair(tmp_path / "four", tied(TABLE), W4, weights_8bit=("table",))
    eight = Pair(tmp_path / "eight", tied(TABLE), W8)
    np.testing.assert_array_equal(four.got(ids(3, 5)), eight.got(ids(3, 5)))


def test_a_pattern_that_names_nothing_is_told_the_tied_table(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="matrices are called like table"):
        Pair(tmp_path, tied(TABLE), W8, activations_16bit=("tabel",))


@pytest.mark.parametrize("kind", SCHEMES)
def test_two_lookups_of_one_table_store_it_once(tmp_path: Path, kind: str) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        tape, table = drawing.tape, drawing.tape.weight("table", TABLE)
        indices = tape.node("ids", "Cast", drawing.x, to=ir.DataType.INT64)
        rows = [tape.node(name, "Gather", table, indices) for name in ("encoder", "decoder")]
        return tape.node("sum", "Add", *rows)

    pair, x = Pair(tmp_path, draw, kind, out=WIDTH), ids(3, 5)
    assert sum(size for _, _, size in pair.stored().values()) < {W8: 1.1, W4: 0.7}[kind] * WORDS * WIDTH + 3000
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > 0.98


# Steps


def decoder(folder: Path) -> Path:
    """Two gated layers with one attention head each, a past, RMS norms and a tied head."""
    folder.mkdir(parents=True)
    tensors = files.TensorFile(folder)
    tape = Tape(tensors)
    tokens = typed("input_ids", "int64", ("batch", "sequence"))
    bias = typed("bias", "float32", ("batch", "sequence", "total_sequence"))
    pasts = [typed(f"past.{n}", "float32", ("batch", "past_sequence", 2 * WIDTH)) for n in range(2)]
    table = tape.weight("table", TABLE)
    x, presents = tape.node("rows", "Gather", table, tokens), []
    for number, past in enumerate(pasts):
        x, present = _layer(tape, f"layer.{number}", x, past, bias)
        presents.append(output(present, f"present.{number}", ("batch", "total_sequence", 2 * WIDTH)))
    logits = output(head(tape, "head", _rms(tape, "norm", x), table), "logits", ("batch", "sequence", WORDS))
    files.save(model_of(tape, "decoder", Drawn([tokens, bias, *pasts], [logits, *presents])), tensors)
    return folder


def _rms(tape: Tape, name: str, x: ir.Value) -> ir.Value:
    mean = tape.node(f"{name}/mean", "ReduceMean", tape.node(f"{name}/square", "Mul", x, x), tape.ints(-1), keepdims=1)
    root = tape.node(f"{name}/root", "Sqrt", tape.node(f"{name}/above", "Add", mean, tape.constant(1e-5, np.float32)))
    return tape.node(name, "Div", x, root)


def _layer(tape: Tape, name: str, x: ir.Value, past: ir.Value, bias: ir.Value) -> tuple[ir.Value, ir.Value]:
    def product(part: str, value: ir.Value, inner: int, outer: int) -> ir.Value:
        seed = sum(map(ord, name + part))
        return tape.node(
            f"{name}.{part}", "MatMul", value, tape.weight(f"{name}.{part}.weight", matrix(inner, outer, seed))
        )

    normed = _rms(tape, f"{name}.before", x)
    present = tape.node(f"{name}.present", "Concat", past, product("kv", normed, WIDTH, 2 * WIDTH), axis=1)
    key = tape.node(f"{name}.key", "Slice", present, tape.ints(0), tape.ints(WIDTH), tape.ints(2))
    value = tape.node(f"{name}.value", "Slice", present, tape.ints(WIDTH), tape.ints(2 * WIDTH), tape.ints(2))
    turned = tape.node(f"{name}.turned", "Transpose", key, perm=[0, 2, 1])
    query = tape.node(f"{name}.query", "Div", product("q", normed, WIDTH, WIDTH), tape.constant(8, np.float32))
    scores = tape.node(f"{name}.scores", "MatMul", query, turned)
    shares = tape.node(f"{name}.shares", "Softmax", tape.node(f"{name}.biased", "Add", scores, bias), axis=-1)
    mixed = product("o", tape.node(f"{name}.mixed", "MatMul", shares, value), WIDTH, WIDTH)
    x = tape.node(f"{name}.attended", "Add", x, mixed)
    normed = _rms(tape, f"{name}.after", x)
    gate = product("gate", normed, WIDTH, INNER)
    gate = tape.node(f"{name}.silu", "Mul", gate, tape.node(f"{name}.sigmoid", "Sigmoid", gate))
    gated = tape.node(f"{name}.gated", "Mul", gate, product("up", normed, WIDTH, INNER))
    return tape.node(f"{name}.out", "Add", x, product("down", gated, INNER, WIDTH)), present


def step(path: Path, tokens: np.ndarray, pasts: list[np.ndarray], padding: int = 0) -> list[np.ndarray]:
    """One call; of the past the first `padding` positions are not looked at."""
    length, past = tokens.shape[1], pasts[0].shape[1]
    bias = np.triu(np.full((length, past + length), -1e9, np.float32), past + 1)
    bias[:, :padding] = -1e9
    feed = {"input_ids": tokens, "bias": np.repeat(bias[None], len(tokens), 0)}
    return small_models.run(path, feed | {f"past.{n}": array for n, array in enumerate(pasts)})


def nothing(batch: int, length: int = 0) -> list[np.ndarray]:
    return [np.full((batch, length, 2 * WIDTH), 7, np.float32) for _ in range(2)]


@pytest.fixture(scope="module", params=SCHEMES)
def steps(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    folder = tmp_path_factory.mktemp("steps")
    small_models.quantized(decoder(folder / "float"), folder / "integer", request.param)
    whole = small_models.finished(folder / "float", folder / "float finished")
    return request.param, whole, small_models.finished(folder / "integer", folder / "integer finished")


TOKENS = ids(4, 6).astype(np.int64)


def test_a_gated_decoder_stays_close(steps: tuple[str, Path, Path]) -> None:
    kind, whole, path = steps
    got, expected = (step(model, TOKENS, nothing(4))[0] for model in (path, whole))
    assert small_models.cosines(got, expected).min() > {W8: 0.995, W4: 0.85}[kind]


def test_steps_of_one_token_give_the_logits_of_the_whole_prompt(steps: tuple[str, Path, Path]) -> None:
    _, _, path = steps
    together, pasts = step(path, TOKENS, nothing(4))[0], nothing(4)
    for place in range(TOKENS.shape[1]):
        logits, *pasts = step(path, TOKENS[:, place : place + 1], pasts)
        assert small_models.cosines(logits[:, 0], together[:, place]).min() > 0.9999


def test_logits_do_not_feel_the_batch_or_the_padding_of_the_past(steps: tuple[str, Path, Path]) -> None:
    _, _, path = steps
    together = step(path, TOKENS, nothing(4))[0]
    padded = step(path, TOKENS, nothing(4, length=3), padding=3)[0]
    assert small_models.cosines(padded, together).min() > 0.9999
    for row in range(4):
        alone = step(path, TOKENS[row : row + 1], nothing(1))[0]
        assert small_models.cosines(alone[0], together[row]).min() > 0.9999


# What stays


# The other schemes


def bodies_with_tensors(folder: Path) -> Path:
    """A model in which two bodies store tensors of one name and different values."""
    folder.mkdir(parents=True)
    tensors = files.TensorFile(folder)
    tape, x = Tape(tensors), typed("x", "float32", ("batch", WIDTH))
    graphs = []
    for seed in range(2):
        stored = ir.Value(name="w", const_value=tensors.add("w", matrix(WIDTH, WIDTH, seed)))
        stored.dtype, stored.shape = ir.DataType.FLOAT, ir.Shape((WIDTH, WIDTH))
        inner = tape.inner()
        product = inner.node(f"product{seed}", "MatMul", x, stored)
        graphs.append(ir.Graph([], [product], nodes=inner.nodes, initializers=[stored], name=f"body{seed}"))
    one = tape.node("one", "Squeeze", tape.node("rows", "Shape", x, end=1))
    alone = tape.node("alone", "Equal", one, tape.constant(1, np.int64))
    y = tape.node("y", "If", alone, then_branch=graphs[0], else_branch=graphs[1])
    files.save(model_of(tape, "bodies", Drawn([x], [output(y, "y", ("batch", WIDTH))])), tensors)
    return folder


@pytest.mark.parametrize(("kind", "least"), [("fp16", 0.99999), (W8, 0.999), (W4, 0.97)])
def test_tensors_that_bodies_store_themselves_are_made_smaller(tmp_path: Path, kind: str, least: float) -> None:
    small_models.quantized(bodies_with_tensors(tmp_path / "float"), tmp_path / "made", kind)
    whole = small_models.finished(tmp_path / "float", tmp_path / "float finished")
    path = small_models.finished(tmp_path / "made", tmp_path / "finished")
    outer, *bodies = files.all_graphs(onnx.load(path).graph)
    assert not any(body.initializer for body in bodies)
    assert outer.initializer
    for rows in (1, 5):
        x = {"x": np.random.default_rng(rows).normal(0, 1, (rows, WIDTH)).astype(np.float32)}
        assert small_models.cosines(small_models.run(path, x)[0], small_models.run(whole, x)[0]).min() > least


@pytest.mark.parametrize("sequence", [1, 7])
@pytest.mark.parametrize(("kind", "share", "least"), [("fp16", 0.55, 0.999999), ("int8-dynamic", 0.4, 0.98)])
def test_other_schemes_make_bodies_smaller(
    tmp_path: Path, kind: str, share: float, least: float, sequence: int
) -> None:
    pair, x = Pair(tmp_path, branches, kind), ids(3, sequence)
    assert pair.path.stat().st_size < share * pair.float_path.stat().st_size
    assert small_models.cosines(pair.got(x), pair.expected(x)).min() > least


def test_fp16_stores_what_bodies_share_once(tmp_path: Path) -> None:
    stored = Pair(tmp_path, branches, "fp16").stored()
    assert sorted(name for name, (dtype, _, _) in stored.items() if dtype == "FLOAT16") == [
        "down/float16", "shared/float16", "table/float16", "up/float16",
    ]  # fmt: skip


def test_int8_dynamic_says_when_it_makes_nothing_smaller(tmp_path: Path) -> None:
    def draw(drawing: Drawing) -> ir.Value:
        return drawing.tape.node("scaled", "Mul", drawing.x, drawing.tape.weight("w", matrix(5, WORDS)))

    small_models.graph(tmp_path / "float", (5, WORDS), draw, (5, WORDS))
    with pytest.raises(StageError, match=r"onnxruntime's quantizer made nothing smaller: .* use the scheme w8a8"):
        small_models.quantized(tmp_path / "float", tmp_path / "made", "int8-dynamic")


def test_int8_dynamic_says_when_onnxruntime_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to find proper ai.onnx domain")

    small_models.graph(tmp_path / "float", ("batch", "sequence"), tied(TABLE), ("batch", "sequence", WORDS))
    monkeypatch.setattr("onnxruntime.quantization.quantize_dynamic", fails)
    with pytest.raises(StageError, match="onnxruntime's quantizer cannot do this model: Failed to find proper"):
        small_models.quantized(tmp_path / "float", tmp_path / "made", "int8-dynamic")
