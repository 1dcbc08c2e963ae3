"""Writing ONNX graphs: files, names, the blocks of a transformer, integer arithmetic per token."""

MODEL, DATA = "model.onnx", "model.onnx.data"
"""A model's files. They stand here because a run in which nothing is built needs the names, but not onnx."""
