"""One promise per file: `Options` are the limits, `check(subject, limits)` gives a verdict."""
