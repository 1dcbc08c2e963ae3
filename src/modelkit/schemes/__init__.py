"""How a graph is made smaller. One file per kind: `Options` and `quantize(model, options)`."""
