"""Writing ONNX graphs: files, names, the blocks of a transformer, integer arithmetic per token."""
