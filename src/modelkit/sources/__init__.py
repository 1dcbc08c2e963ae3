"""Where bytes come from. One file per kind: `Options` and `fetch(options, wanted, into, context)`."""
