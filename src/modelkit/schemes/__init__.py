"""How a graph is made smaller. One file per kind: `Options` and `quantize(source, into, options)`."""
