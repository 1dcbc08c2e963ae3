"""Side-by-side measurements: ratios taken in one run. `python -m bench` runs them all; see README.md."""
