"""Source files -> ONNX. One file per kind: `Options` and `export`."""
