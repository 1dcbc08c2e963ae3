"""What can go wrong with an artifact. One file per kind: `spoil(what, draw)` damages a copy, and a check notices."""
