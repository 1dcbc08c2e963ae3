"""Graphs as a tracing exporter leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from modelkit.graphs import DATA, MODEL
from subjects import info


def traced(folder: Path, inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto]) -> Path:
    """A graph in which output n is input n times a stored matrix, told about as a tracer tells."""
    folder.mkdir()
    nodes, tensors = [], []
    for number, (source, result) in enumerate(zip(inputs, outputs, strict=True)):
        tensors.append(numpy_helper.from_array(np.eye(32, dtype=np.float32) * (number + 2), f"onnx::MatMul_{number}"))
        nodes.append(helper.make_node("MatMul", [source.name, tensors[-1].name], [f"inner_{number}"], f"/{number}"))
        nodes.append(helper.make_node("Relu", [f"inner_{number}"], [result.name], f"/{number}/relu"))
        nodes[-1].doc_string = "File /home/someone/model.py, line 7"
        nodes[-1].metadata_props.add(key="trace", value="/home/someone/model.py")
    inner = [info(f"inner_{number}", shape=("batch_size", "old_name", 32)) for number in range(len(inputs))]
    graph = helper.make_graph(nodes, "main_graph", inputs, outputs, tensors, value_info=inner, doc_string="/tmp/x")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8, doc_string="/tmp/y")
    onnx.save(model, folder / MODEL, save_as_external_data=True, location=DATA, size_threshold=1024)
    return folder
