"""The only importer of onnxruntime: sessions, their threads, and the stock quantizer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from modelkit.errors import CheckError, StageError

WITH_WEIGHTS = ["Conv", "Gather", "Gemm", "MatMul"]
"""Operators that static quantization looks at: those that read a stored matrix."""
FIRST_WITH_INT4 = 21
"""Opset, https://github.com/onnx/onnx/blob/main/docs/Versioning.md."""


class Session:
    """One ONNX model, loaded: a file, or the bytes of a model whose large tensors are in files of the folder `data`.

    `threads` is the intra-op thread count; None leaves the choice to onnxruntime. A `sparing` session holds each weight
    once, as it is stored, and is slower for it."""

    def __init__(
        self, model: Path | bytes, threads: int | None = None, *, sparing: bool = False, data: Path | None = None
    ) -> None:
        ort = _onnxruntime()
        options = ort.SessionOptions()
        # Whatever fails is raised; its own error lines on standard error would only double that.
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
        # Spinning threads would slow down whatever runs beside a session that waits.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if data is not None:
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data))
        if sparing:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except _ort_errors() as error:
            raise StageError(
                f"onnxruntime cannot load it: {_first_line(error)}",
                where=model if isinstance(model, Path) else data,
                hint="build it again",
            ) from error
        give_back_memory()
        self.inputs: dict[str, tuple[str, list[int | str]]] = {
            node.name: (node.type, node.shape) for node in self._session.get_inputs()
        }
        self.outputs: dict[str, tuple[str, list[int | str]]] = {
            node.name: (node.type, node.shape) for node in self._session.get_outputs()
        }

    def run(self, feed: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
        """Arrays of the named outputs, all of them in graph order by default. Raises `CheckError` if the run fails."""
        try:
            return list(self._session.run(outputs, dict(feed)))
        except _ort_errors() as error:
            raise CheckError(f"onnxruntime could not run the model: {_first_line(error)}") from error


class Sessions:
    """The parts of one model, each loaded when it is first asked for: embedding a text needs no image model."""

    def __init__(self, paths: Mapping[str, Path], threads: int | None = None, *, sparing: bool = False) -> None:
        self._paths, self._threads, self._sparing = paths, threads, sparing
        self._loaded: dict[str, Session] = {}

    def __getitem__(self, part: str) -> Session:
        """Raises `StageError` when the model has no such part, or it does not load."""
        if part not in self._paths:
            raise StageError(f"the model has no part '{part}'; it has {', '.join(self._paths) or 'none'}")
        if part not in self._loaded:
            self._loaded[part] = Session(self._paths[part], self._threads, sparing=self._sparing)
        return self._loaded[part]

    def __iter__(self) -> Iterator[str]:
        """The names of the parts."""
        return iter(self._paths)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._paths)


def quantize_dynamic(source: Path, target: Path, *, per_channel: bool, reduce_range: bool) -> None:
    """onnxruntime's own dynamic int8, with the two options without which it skips nodes silently."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # noqa: PLC0415

    with _stock_quantizer(source):
        quantize_dynamic(
            source,
            target,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            # EnableSubgraph: `If` bodies are skipped without it. DefaultTensorType 1 (float): unknown shapes fail.
            extra_options={"EnableSubgraph": True, "DefaultTensorType": 1},
        )


def quantize_static(
    source: Path, target: Path, feeds: Sequence[Mapping[str, Any]], *, per_channel: bool, reduce_range: bool
) -> None:
    """onnxruntime's own static int8 as QuantizeLinear and DequantizeLinear pairs; activations uint8, their ranges the
    least and the largest value over `feeds`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static  # noqa: PLC0415

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Any:
            feed = next(self.left, None)
            return dict(feed) if feed else None

    with _stock_quantizer(source, *_ort_errors()):
        quantize_static(
            source, target, Reader(), per_channel=per_channel, reduce_range=reduce_range,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=WITH_WEIGHTS,
            nodes_to_exclude=_products_of_activations(source),
        )  # fmt: skip


def _products_of_activations(source: Path) -> list[str]:
    """Names of the nodes that stay float32, as dynamic quantization leaves them; its own option for that is ignored."""
    import onnx  # noqa: PLC0415

    graph = onnx.load(source, load_external_data=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    # A head that is tied to a table reads it through a Transpose.
    stored |= {node.output[0] for node in graph.node if node.op_type == "Transpose" and node.input[0] in stored}
    return [node.name for node in graph.node if node.op_type in ("Gemm", "MatMul") and node.input[1] not in stored]


def quantize_matmul_nbits(
    source: Path, target: Path, bits: int, block: int, accuracy_level: int, *, symmetric: bool
) -> None:
    """onnxruntime's own weight-only quantization: products in `bits`, tables in 4, in blocks along the inner axis."""
    import onnx  # noqa: PLC0415
    from onnx import version_converter  # noqa: PLC0415
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415

    with _stock_quantizer(source, onnx.shape_inference.InferenceError, version_converter.ConvertError):
        model = onnx.load(source)
        # Left to itself, the quantizer declares the version without converting anything.
        if next(one.version for one in model.opset_import if not one.domain) < FIRST_WITH_INT4:
            model = version_converter.convert_version(model, FIRST_WITH_INT4)
        for operator, width in {"MatMul": bits, "Gather": 4}.items():
            quantizer = MatMulNBitsQuantizer(
                model, width, block, symmetric, accuracy_level or None, _other_than_tables(model.graph),
                op_types_to_quantize=(operator,),
            )  # fmt: skip
            quantizer.process()
            model = quantizer.model.model
        target.write_bytes(model.SerializeToString(deterministic=True))


def _other_than_tables(graph: Any) -> list[str]:
    """Names of the nodes that gather something else from what is stored: the quantizer stumbles over vectors."""
    import onnx  # noqa: PLC0415

    tables = {one.name for one in graph.initializer if len(one.dims) == 2 and one.data_type == onnx.TensorProto.FLOAT}
    return [node.name for node in graph.node if node.op_type == "Gather" and node.input[0] not in tables]


@contextmanager
def _stock_quantizer(source: Path, *failures: type[Exception]) -> Iterator[None]:
    """Quiet, and in one sentence when it fails, with `failures` beside the usual ones."""
    import logging  # noqa: PLC0415

    # It logs every node that it looks at, and recommends its pre-processing on every call, to the root logger.
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization")
    root.addFilter(_not_from_quantizer)
    before = own.level
    own.setLevel(logging.ERROR)
    told: tuple[type[Exception], ...] = (RuntimeError, LookupError, TypeError, ValueError, AssertionError, *failures)
    try:
        yield
    except told as error:
        reason = _first_line(error) if str(error).strip() else type(error).__name__
        raise StageError(
            f"onnxruntime's quantizer cannot do this model: {reason}",
            where=source,
            hint="use the scheme w8a8-per-token",
        ) from error
    finally:
        own.setLevel(before)
        root.removeFilter(_not_from_quantizer)


def _not_from_quantizer(record: Any) -> bool:
    return Path(record.pathname).parent.name != "quantization"


def version() -> str:
    """onnxruntime's own, which loads it."""
    return str(_onnxruntime().__version__)


def kernels() -> dict[str, dict[str, list[tuple[int, int]]]]:
    """Domain (`""` is ONNX's own) -> operator -> first and last version of each kernel of the CPU, as registered."""
    _onnxruntime()
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    found: dict[str, dict[str, set[tuple[int, int]]]] = {}
    for kernel in state.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider":
            found.setdefault(kernel.domain, {}).setdefault(kernel.op_name, set()).add(tuple(kernel.version_range))
    return {domain: {name: sorted(ranges) for name, ranges in sorted(names.items())}
            for domain, names in sorted(found.items())}  # fmt: skip


@cache
def _onnxruntime() -> Any:
    import onnxruntime  # noqa: PLC0415

    onnxruntime.disable_telemetry_events()
    return onnxruntime


def give_back_memory() -> None:
    """Return what constant folding freed: glibc keeps it, five times a 4-bit model, until it is asked."""
    if (trim := _malloc_trim()) is not None:
        trim(0)


@cache
def _malloc_trim() -> Any:
    """glibc's malloc_trim(3); None where the C library has none."""
    import ctypes  # noqa: PLC0415

    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None


@cache
def _ort_errors() -> tuple[type[Exception], ...]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state  # noqa: PLC0415

    found = (getattr(state, name) for name in dir(state))
    own = (item for item in found if isinstance(item, type) and issubclass(item, Exception))
    return (ValueError, *own)  # its Python layer says so when an input is missing


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].replace("[ONNXRuntimeError] : ", "")


@cache
def cpu() -> Mapping[str, Any]:
    """What makes this machine's arithmetic differ from another's: architecture, SIMD features, core count."""
    import platform  # noqa: PLC0415

    wanted = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm")
    cpuinfo = Path("/proc/cpuinfo")
    flags: set[str] = set()
    if cpuinfo.exists():
        line = next((x for x in cpuinfo.read_text().splitlines() if x.startswith(("flags", "Features"))), "")
        flags = set(line.split())
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "features": [name for name in wanted if name in flags],
        "cores": os.cpu_count() or 1,
    }
